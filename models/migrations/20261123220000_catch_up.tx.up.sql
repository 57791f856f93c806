-- Since when a host's schedules are read in its zone: what was due before, by
-- another zone's clock, is never caught up.
alter table hosts add column timezone_since timestamptz not null default now();
