-- When a group becomes late if no good snapshot comes, and by which due time of
-- which schedule: kept as jobs end, schedules change and zones change, so that
-- no page reads a cron expression to know who is not safe. SQL can't read one
-- either: a server fills them at its start and looks again every hour.
--
-- Due times up to covered_at are answered by a good snapshot; it is not good_at
-- alone, because a run may begin, by a clock that is ahead, before it is due.
alter table source_groups
    add column covered_at timestamptz,
    add column due_at timestamptz,
    add column late_at timestamptz,
    add column due_schedule_id uuid references schedules (id),
    -- What the newest good snapshot of the same includes and excludes held: the
    -- history that the next one is compared with. 0 is no history.
    add column usual_files bigint not null default 0,
    add column usual_bytes bigint not null default 0;
update source_groups set covered_at = good_at;

-- The window in which agents spread their schedules, as the servers were
-- started last.
create table schedule_spread (
    one boolean primary key default true check (one),
    jitter interval not null default '0'
);
insert into schedule_spread default values;

-- What a day brought to the whole fleet.
create index source_group_days_day on source_group_days (day);
