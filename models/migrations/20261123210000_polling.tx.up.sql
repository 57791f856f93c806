-- The session of a host's link, so that any server can go on with it, and why
-- an agent that could have a WebSocket polls.
alter table hosts add column link_session text not null default '';
alter table hosts add column link_reason text not null default '';

-- When what an agent may be told changed: its schedule version, its credential,
-- its being there. Servers that answer from memory ask for what has changed
-- since the oldest transaction that was open when they last asked, so that no
-- commit is missed, whatever the order.
alter table hosts add column changed_xid xid8 not null default pg_current_xact_id();
create index hosts_changed on hosts (changed_xid);
create function host_changed() returns trigger language plpgsql as $$
begin
    new.changed_xid := pg_current_xact_id();
    return new;
end $$;
create trigger hosts_changed before update of schedule_version, agent_token_hash, archived_at on hosts
    for each row when ((old.schedule_version, old.agent_token_hash, old.archived_at)
        is distinct from (new.schedule_version, new.agent_token_hash, new.archived_at))
    execute function host_changed();
