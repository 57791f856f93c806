-- One look at a host's snapshots may wait, whoever asks for it: it sees all that
-- ends before it begins.
create unique index jobs_one_refresh on jobs (host_id)
    where kind = 'snapshots' and state = 'queued' and spec->'preview' is null;
create index snapshots_job on snapshots (job_id) where job_id is not null;

-- What differs between two snapshots, the older first. Snapshots never change,
-- so that this stays true for as long as they are there.
create table snapshot_diffs (
    host_id uuid not null references hosts (id) on delete cascade,
    older text not null,
    newer text not null,
    stats jsonb not null default '{}',
    changes jsonb not null default '[]',
    -- How many changes there are besides those that are kept.
    more bigint not null default 0,
    made_at timestamptz not null default now(),
    primary key (host_id, older, newer)
);

-- The list is of the repository that a host has now. With another address it
-- begins anew, and an answer about the former one finds no place.
create function snapshot_list_left() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' or new.url_key is distinct from old.url_key then
        delete from snapshots where host_id = old.host_id;
        delete from snapshot_diffs where host_id = old.host_id;
        update hosts set snapshots_listed_at = null where id = old.host_id and snapshots_listed_at is not null;
    end if;
    return null;
end $$;
create trigger host_repositories_list after update of url_key or delete on host_repositories
    for each row execute function snapshot_list_left();
