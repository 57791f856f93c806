-- A session's token is its browser's alone: what a page ends it by is its id.
alter table sessions add column id uuid not null unique default gen_random_uuid();

alter table api_tokens add column last_used_at timestamptz;

-- The name that the target had then: a user who was deleted has none later.
alter table audit_entries add column about text not null default '';
-- Agents make by far the most entries, people look for those of people.
create index audit_entries_people on audit_entries (id) where actor_kind <> 'agent';
