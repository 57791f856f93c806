-- Which start of its machine an agent belongs to, empty where that is not
-- known, and when it was last heard by the servers' common clock (hearing).
alter table host_agents
    add column boot_id text not null default '',
    add column heard interval not null default '0';
update host_agents set heard = (select heard from hearing);

-- Until when a job that was sent and not accepted is left to whom it was sent.
alter table jobs add column offer_after timestamptz;
