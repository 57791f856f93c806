-- The whole of Resticfleet's memory. Rules that must hold whatever a program
-- or a person at a psql prompt does stand here as constraints and triggers.

create table users (
    id uuid primary key,
    name text not null check (name <> '' and length(name) <= 100),
    role text not null check (role in ('viewer', 'operator', 'admin')),
    password_hash text not null,
    created_at timestamptz not null default now()
);
create unique index users_name on users (lower(name));

create table sessions (
    token_hash bytea primary key,
    user_id uuid not null references users (id) on delete cascade,
    created_at timestamptz not null default now(),
    seen_at timestamptz not null default now(),
    expires_at timestamptz not null,
    address text not null default '',
    user_agent text not null default ''
);
create index sessions_user on sessions (user_id);

create table setup_links (
    token_hash bytea primary key,
    expires_at timestamptz not null,
    used_at timestamptz
);

create table api_tokens (
    id uuid primary key,
    name text not null check (name <> '' and length(name) <= 100),
    role text not null check (role in ('viewer', 'operator', 'admin')),
    token_hash bytea not null unique,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);

create table audit_entries (
    id uuid primary key,
    at timestamptz not null default now(),
    actor_kind text not null check (actor_kind in ('user', 'token', 'agent', 'system')),
    actor_id uuid,
    actor_name text not null default '',
    action text not null,
    target text not null default '',
    outcome integer not null,
    address text not null default ''
);

-- One row that only the right secret key opens: a wrong key is an error at
-- start, not at the first backup.
create table sealing_check (
    one boolean primary key default true check (one),
    sealed bytea not null
);

create table hosts (
    id uuid primary key,
    -- A small number for the gate ranges below.
    no integer generated always as identity unique,
    name text not null check (name <> '' and length(name) <= 100),
    restic_host text not null check (restic_host <> '' and length(restic_host) <= 255),
    labels jsonb not null default '[]',
    os text not null default '',
    arch text not null default '',
    timezone text not null default 'UTC',
    timezone_known boolean not null default false,
    agent_version text not null default '',
    restic_version text not null default '',
    agent_token_hash bytea unique,
    public_key bytea,
    enrolled_at timestamptz,
    journal_id text not null default '',
    link text check (link in ('websocket', 'polling')),
    -- Raised by every new link; messages and claims of an older one don't count.
    link_generation bigint not null default 0,
    link_since timestamptz,
    link_closed_at timestamptz,
    last_seen_at timestamptz,
    clock_skew_ms bigint not null default 0,
    schedule_version bigint not null default 0,
    applied_schedule_version bigint not null default 0,
    applied_schedule_digest text not null default '',
    created_at timestamptz not null default now(),
    archived_at timestamptz
);
create unique index hosts_name on hosts (lower(name)) where archived_at is null;
-- For ever: the snapshots of a deleted host stay its own.
create unique index hosts_restic_host on hosts (restic_host);

create function only_grows() returns trigger language plpgsql as $$
begin
    if new.schedule_version < old.schedule_version then
        raise exception 'the schedule version of host % can only grow (% to %)',
            old.id, old.schedule_version, new.schedule_version
            using errcode = 'check_violation';
    end if;
    return new;
end $$;
create trigger hosts_schedule_version before update of schedule_version on hosts
    for each row execute function only_grows();

create table enrollment_tokens (
    token_hash bytea primary key,
    host_id uuid not null references hosts (id) on delete cascade,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at timestamptz
);
create index enrollment_tokens_host on enrollment_tokens (host_id);

-- A repository as the fleet knows it, whatever URL leads there. The id is the
-- number of its gate.
create table repositories (
    id integer generated always as identity primary key,
    restic_id text unique
);
create table repository_urls (
    url text primary key,
    repository_id integer not null references repositories (id)
);
create index repository_urls_repository on repository_urls (repository_id);

create table host_repositories (
    host_id uuid primary key references hosts (id) on delete cascade,
    url text not null,
    -- The address as it is compared; where it leads stands in repository_urls.
    url_key text not null references repository_urls (url),
    password_sealed bytea not null,
    env_sealed jsonb not null default '{}',
    bound_at timestamptz not null default now()
);
create index host_repositories_url on host_repositories (url_key);

create table host_repo_maintenance (
    host_id uuid primary key references hosts (id) on delete cascade,
    forget_cron text not null,
    forget_enabled boolean not null,
    prune_cron text not null,
    prune_enabled boolean not null,
    check_cron text not null,
    check_enabled boolean not null,
    check_read_data_subset text not null,
    updated_at timestamptz not null default now()
);

create table source_groups (
    id uuid primary key,
    host_id uuid not null references hosts (id) on delete cascade,
    name text not null check (name <> '' and length(name) <= 100),
    tag text not null check (tag <> '' and tag not like 'job:%' and tag !~ ',' and tag !~ '[[:cntrl:]]'),
    includes jsonb not null check (jsonb_array_length(includes) > 0),
    excludes jsonb not null default '[]',
    retention jsonb not null default '{}',
    min_files bigint not null default 0 check (min_files >= 0),
    min_bytes bigint not null default 0 check (min_bytes >= 0),
    -- Kept as jobs end, so that no page scans jobs.
    newest_snapshot_id text not null default '',
    good_snapshot_id text not null default '',
    good_at timestamptz,
    good_bytes bigint not null default 0,
    last_job_id uuid,
    last_state text not null default '',
    last_error text not null default '',
    created_at timestamptz not null default now(),
    archived_at timestamptz,
    live boolean not null generated always as (archived_at is null) stored,
    unique (id, host_id, live)
);
create unique index source_groups_name on source_groups (host_id, lower(name)) where archived_at is null;
create index source_groups_host on source_groups (host_id);

-- Every tag a group ever had stays that group's for ever.
create table source_group_tags (
    host_id uuid not null references hosts (id) on delete cascade,
    tag text not null,
    source_group_id uuid not null references source_groups (id) on delete cascade deferrable initially deferred,
    primary key (host_id, tag),
    unique (host_id, tag, source_group_id)
);
create index source_group_tags_group on source_group_tags (source_group_id);
alter table source_groups add constraint source_groups_tag
    foreign key (host_id, tag, id) references source_group_tags (host_id, tag, source_group_id)
    deferrable initially deferred;

-- What became of each group on each local day: the 30-day strip.
create table source_group_days (
    source_group_id uuid not null references source_groups (id) on delete cascade,
    day date not null,
    good integer not null default 0,
    warning integer not null default 0,
    failed integer not null default 0,
    primary key (source_group_id, day)
);

create table schedules (
    id uuid primary key,
    host_id uuid not null references hosts (id) on delete cascade,
    cron text not null check (cron <> ''),
    enabled boolean not null,
    created_at timestamptz not null default now(),
    -- Last change or enabling: nothing before it is ever caught up.
    effective_at timestamptz not null default now(),
    archived_at timestamptz,
    unique (id, host_id)
);
create index schedules_host on schedules (host_id);

create table schedule_source_groups (
    schedule_id uuid not null,
    source_group_id uuid not null,
    host_id uuid not null,
    -- Points at a group that lives: archiving one that is still scheduled, and
    -- scheduling one that is being archived, both fail in the database.
    source_group_live boolean not null default true check (source_group_live),
    primary key (schedule_id, source_group_id),
    foreign key (schedule_id, host_id) references schedules (id, host_id) on delete cascade,
    constraint schedule_source_groups_group
        foreign key (source_group_id, host_id, source_group_live) references source_groups (id, host_id, live)
);
create index schedule_source_groups_group_index on schedule_source_groups (source_group_id);

create table jobs (
    id uuid primary key,
    host_id uuid not null references hosts (id) on delete cascade,
    kind text not null check (kind in ('init', 'backup', 'forget', 'prune', 'check', 'unlock', 'restore',
        'drill', 'snapshots', 'ls', 'diff', 'find')),
    state text not null check (state in ('queued', 'sent', 'running', 'succeeded', 'warning', 'failed',
        'cancelled', 'skipped', 'expired', 'lost')),
    actor_kind text not null check (actor_kind in ('user', 'schedule', 'system')),
    actor_id uuid,
    actor_name text not null default '',
    scheduled_id uuid,
    scheduled_at timestamptz,
    catch_up boolean not null default false,
    late boolean not null default false,
    source_group_id uuid references source_groups (id),
    source_group_name text not null default '',
    -- Includes, excludes, tag, retention, minimums: fixed when the job is made.
    spec jsonb not null default '{}',
    repository_id integer references repositories (id),
    repository_url text not null default '',
    attempt integer not null default 0,
    claim_generation bigint not null default 0,
    claim_journal_id text not null default '',
    offered_at timestamptz,
    -- Held while sent or running; see jobs_gate.
    gate int8range,
    snapshot_id text not null default '',
    exit_code integer,
    error text not null default '',
    error_code text not null default '',
    stats jsonb not null default '{}',
    -- Names of files that could not be read, at most a hundred.
    unreadable jsonb not null default '[]',
    progress jsonb,
    progress_seq bigint not null default 0,
    queued_at timestamptz not null default now(),
    sent_at timestamptz,
    accepted_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    cancel_requested_at timestamptz,

    check ((scheduled_id is null) = (scheduled_at is null)),
    check (actor_kind <> 'schedule' or scheduled_id is not null),
    check (kind <> 'backup' or source_group_id is not null),
    check ((finished_at is not null) = (state not in ('queued', 'sent', 'running'))),
    check (state <> 'sent' or sent_at is not null),
    check (kind <> 'backup' or state <> 'succeeded' or snapshot_id <> ''),
    -- One job for one (schedule, due time, group), whoever reports it.
    constraint jobs_once unique (scheduled_id, scheduled_at, source_group_id),
    -- The gate of a repository. A backup of host h takes the point h of its
    -- repository's range, exclusive work takes the whole range: so two backups
    -- of one host, or anything beside exclusive work, can't both be under way,
    -- whichever server claims them.
    constraint jobs_gate exclude using gist (gate with &&) where (gate is not null)
);
create index jobs_host on jobs (host_id, id desc);
create index jobs_group on jobs (source_group_id, id desc);
create index jobs_state on jobs (state, id desc);
create index jobs_kind on jobs (kind, id desc);
create index jobs_open on jobs (host_id, id) where state in ('queued', 'sent', 'running');
create index jobs_waiting on jobs (repository_id, id) where state = 'queued';
-- At most one system init per host and URL that waits or reached the agent.
create unique index jobs_system_init on jobs (host_id, repository_url)
    where kind = 'init' and actor_kind = 'system' and (accepted_at is not null or state in ('queued', 'sent'));
-- At most one waiting, never claimed backup per group.
create unique index jobs_one_waiting on jobs (source_group_id) where kind = 'backup' and state = 'queued';

create function job_made() returns trigger language plpgsql as $$
begin
    if new.state not in ('queued', 'skipped') then
        raise exception 'a job begins as queued or skipped, not as %', new.state
            using errcode = 'check_violation';
    end if;
    return new;
end $$;
create trigger jobs_made before insert on jobs for each row execute function job_made();

-- States move forward only. Two exceptions: a returning host makes a lost job
-- running again, and a late true result replaces lost or expired.
create function job_moved() returns trigger language plpgsql as $$
declare
    ended constant text[] := array['succeeded', 'warning', 'failed', 'cancelled'];
    fine boolean;
begin
    fine := case old.state
        when 'queued' then new.state = any (ended || array['sent', 'running', 'skipped', 'expired'])
        when 'sent' then new.state = any (ended || array['running', 'expired', 'lost'])
        when 'running' then new.state = any (ended || array['lost'])
        when 'lost' then new.state = 'running' or (new.state = any (ended) and new.late)
        when 'expired' then new.state = any (ended) and new.late
        else false
    end;
    if not fine then
        raise exception 'job % can''t go from % to %', old.id, old.state, new.state
            using errcode = 'check_violation', constraint = 'jobs_forward_only';
    end if;
    if new.state not in ('sent', 'running') then
        new.gate := null;
    end if;
    return new;
end $$;
create trigger jobs_moved before update of state on jobs
    for each row when (old.state is distinct from new.state) execute function job_moved();

create function job_kept() returns trigger language plpgsql as $$
begin
    raise exception 'job % belongs to its host and kind for ever', old.id
        using errcode = 'check_violation';
end $$;
create trigger jobs_kept before update of host_id, kind, source_group_id, scheduled_id, scheduled_at on jobs
    for each row when ((old.host_id, old.kind, old.source_group_id, old.scheduled_id, old.scheduled_at)
        is distinct from (new.host_id, new.kind, new.source_group_id, new.scheduled_id, new.scheduled_at))
    execute function job_kept();

create table job_log_lines (
    job_id uuid not null references jobs (id) on delete cascade,
    seq bigint not null check (seq > 0),
    at timestamptz not null,
    level text not null check (level in ('info', 'warning', 'error')),
    text text not null,
    primary key (job_id, seq)
);
