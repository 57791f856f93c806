-- How long servers have been listening, in all, as one growing number: the
-- silence of a host is measured by it, so that hours in which no server ran
-- count for nothing.
create table hearing (
    one boolean primary key default true check (one),
    heard interval not null default '0',
    ticked_at timestamptz not null default now()
);
insert into hearing default values;

-- What the number was at a host's last contact, and when a job was made.
alter table hosts add column heard interval not null default '0';
alter table jobs add column heard interval not null default '0';

create or replace function job_made() returns trigger language plpgsql as $$
begin
    if new.state not in ('queued', 'skipped') then
        raise exception 'a job begins as queued or skipped, not as %', new.state
            using errcode = 'check_violation';
    end if;
    new.heard := (select heard from hearing);
    return new;
end $$;
