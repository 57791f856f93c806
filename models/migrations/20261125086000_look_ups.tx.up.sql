-- A host's newest look is read with its page, however many backups came since.
create index jobs_look_ups on jobs (host_id, kind, id desc) where kind in ('snapshots', 'ls', 'diff', 'find');
