-- A backup that waited while exclusive work took its repository: the next one
-- waits for it, so that neither kind keeps the other waiting for long.
alter table jobs add column overtaken boolean not null default false;
