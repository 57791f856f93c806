-- Which process speaks for a host, by which version of the protocol, and since
-- when two machines seem to share its identity.
alter table hosts
    add column agent_instance text not null default '',
    add column agent_protocol integer not null default 1,
    add column cloned_at timestamptz;

-- The newest agents that spoke for a host: one that comes back after another
-- had taken over is a second machine, since a process that ended never comes
-- back. replaced_at is null for the one that speaks now.
create table host_agents (
    host_id uuid not null references hosts (id) on delete cascade,
    instance text not null,
    clock_skew_ms bigint not null default 0,
    seen_at timestamptz not null,
    replaced_at timestamptz,
    primary key (host_id, instance)
);

-- Whom a job was sent to, empty where that were several. From settle_after on
-- its host is asked what the repository knows of it, and never told to run it.
alter table jobs
    add column claim_instance text not null default '',
    add column settle_after timestamptz;
create index jobs_to_settle on jobs (host_id, settle_after) where settle_after is not null;
