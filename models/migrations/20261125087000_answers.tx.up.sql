-- How much a piece of an answer holds: what is kept of one job is bounded, and
-- no piece that comes reads those before it.
alter table job_answers
    add column item_count integer not null default 0,
    add column bytes integer not null default 0;
