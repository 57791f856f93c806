-- A job that only its agent still remembers is made again as one that was
-- accepted already. It waits for nothing, also beside one that does.
drop index jobs_one_waiting;
create unique index jobs_one_waiting on jobs (source_group_id)
    where kind = 'backup' and state = 'queued' and accepted_at is null;
-- One init per host and address; a second one that only its agent remembers
-- has none.
drop index jobs_system_init;
create unique index jobs_system_init on jobs (host_id, repository_url)
    where kind = 'init' and actor_kind = 'system' and repository_url <> ''
        and (accepted_at is not null or state in ('queued', 'sent'));
