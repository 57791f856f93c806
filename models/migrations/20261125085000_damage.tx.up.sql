-- What was found damaged of a repository and by no check found whole since: one
-- row for each part of the data, as it was read. Kept as jobs end, so that no
-- page scans jobs, and a check of another part hides nothing.
create table repository_damage (
    repository_id integer not null references repositories (id) on delete cascade,
    -- As restic was told: 3/12, 10%, 500M; '' where no data was read.
    subset text not null,
    found_at timestamptz not null,
    -- The newest job that said so, when, and how many errors it counted.
    job_id uuid not null,
    seen_at timestamptz not null,
    errors integer not null default 0,
    primary key (repository_id, subset)
);
insert into repository_damage (repository_id, subset, found_at, job_id, seen_at)
    select u.repository_id, coalesce(j.spec ->> 'read_data_subset', ''), min(s.last_ended_at), max(s.last_job_id::text)::uuid, max(s.last_ended_at)
    from maintenance_states s join host_repositories hr on hr.host_id = s.host_id join repository_urls u on u.url = hr.url_key
    join jobs j on j.id = s.last_job_id
    where s.last_code = 'damaged' and s.last_ended_at is not null
        and not exists (select from repositories r join maintenance_states o on o.host_id = r.owner_host_id and o.kind = s.kind
            where r.id = u.repository_id and o.host_id <> s.host_id and o.good_at > s.last_ended_at)
    group by 1, 2;

alter table repositories
    -- How many parts in a row the check that goes round has found good.
    add column check_good integer not null default 0,
    -- The last check read a damaged part out of turn: the next one that nobody
    -- asks for goes on with the round.
    add column check_reread boolean not null default false;

-- When a kind of maintenance that is due while its host is there counts as stale,
-- unless it succeeds before; null while none is owed.
alter table maintenance_states add column stale_at timestamptz;
