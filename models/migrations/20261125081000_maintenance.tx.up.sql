-- Who prunes and checks a repository that several hosts share, since when and
-- why; and how far the check that reads the data part by part is round.
alter table repositories
    add column owner_host_id uuid references hosts (id),
    add column owner_since timestamptz,
    add column owner_reason text not null default '' check (owner_reason in ('', 'bound', 'chosen', 'taken')),
    add column owner_before uuid references hosts (id),
    add column check_parts integer not null default 0,
    add column check_next integer not null default 1,
    add column check_read integer not null default 0,
    add column check_round_at timestamptz,
    add column checked_whole_at timestamptz;
update repositories r set owner_host_id = f.host_id, owner_since = f.bound_at, owner_reason = 'bound' from (
    select distinct on (u.repository_id) u.repository_id, hr.host_id, hr.bound_at
    from host_repositories hr join repository_urls u on u.url = hr.url_key join hosts h on h.id = hr.host_id and h.archived_at is null
    order by u.repository_id, hr.bound_at, hr.host_id) f where f.repository_id = r.id;

-- What became of each host's forget, prune and check: kept as jobs end, so that
-- neither a page nor the ticker scans jobs.
create table maintenance_states (
    host_id uuid not null references hosts (id) on delete cascade,
    kind text not null check (kind in ('forget', 'prune', 'check')),
    -- Nothing is due before this: the last change of its cadence.
    effective_at timestamptz not null default now(),
    -- The newest due time that has its row.
    due_at timestamptz,
    -- How often it failed in a row, and when last.
    failures integer not null default 0,
    failed_at timestamptz,
    last_job_id uuid,
    last_state text not null default '',
    last_code text not null default '',
    last_error text not null default '',
    last_ended_at timestamptz,
    good_at timestamptz,
    primary key (host_id, kind)
);
insert into maintenance_states (host_id, kind, effective_at)
    select m.host_id, k, m.updated_at from host_repo_maintenance m cross join unnest(array['forget', 'prune', 'check']) k;
