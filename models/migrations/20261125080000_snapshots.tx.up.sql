-- A due time of maintenance is a job of its own, whoever makes it: a row for
-- each (host, kind, due time), also where there was nothing to do.
alter table jobs drop constraint jobs_check;
alter table jobs add constraint jobs_due check (
    case when scheduled_at is null then scheduled_id is null
    else scheduled_id is not null or kind in ('forget', 'prune', 'check') end);
create unique index jobs_maintenance_once on jobs (host_id, kind, scheduled_at) where scheduled_id is null and scheduled_at is not null;

-- What a look-up has answered so far, piece by piece. It is read and removed
-- when the job ends.
create table job_answers (
    job_id uuid not null references jobs (id) on delete cascade,
    seq bigint not null check (seq > 0),
    items jsonb not null,
    primary key (job_id, seq)
);

-- What restic's list says of the snapshots of a host's restic host in the
-- repository that it has now.
create table snapshots (
    host_id uuid not null references hosts (id) on delete cascade,
    id text not null check (id ~ '^[0-9a-f]{64}$'),
    at timestamptz not null,
    hostname text not null,
    username text not null default '',
    paths jsonb not null default '[]',
    tags jsonb not null default '[]',
    source_group_id uuid references source_groups (id),
    job_id uuid,
    size_bytes bigint,
    file_count bigint,
    primary key (host_id, id)
);
create index snapshots_newest on snapshots (host_id, at desc, id desc);
create index snapshots_group on snapshots (source_group_id, at desc, id desc);

-- What must never be forgotten. It outlives the list: a host that leaves its
-- repository and comes back finds it again.
create table snapshot_holds (
    host_id uuid not null references hosts (id) on delete cascade,
    snapshot_id text not null check (snapshot_id ~ '^[0-9a-f]{64}$'),
    held_by text not null default '',
    held_at timestamptz not null default now(),
    primary key (host_id, snapshot_id)
);

-- Of which moment the list of a host's snapshots is: an older answer that comes
-- later changes nothing.
alter table hosts add column snapshots_listed_at timestamptz;
