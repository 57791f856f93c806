-- A second way into a host's repository, for what removes: forget and prune.
-- Where the everyday one may only add, whoever breaks into the host can't take
-- away what is stored.
alter table host_repositories
    add column maintenance_url text,
    add column maintenance_password_sealed bytea,
    add column maintenance_env_sealed jsonb,
    add column maintenance_bound_at timestamptz,
    add constraint host_repositories_maintenance_whole
        check (num_nulls(maintenance_url, maintenance_password_sealed, maintenance_env_sealed, maintenance_bound_at) in (0, 4));

create or replace function sealed_by_the_current_key() returns trigger language plpgsql as $$
declare
    mark bytea;
begin
    select sealed into mark from sealing_check for share;
    if found and exists (
        select from (
            select new.password_sealed union all select decode(value, 'base64') from jsonb_each_text(new.env_sealed)
            union all select new.maintenance_password_sealed union all select decode(value, 'base64') from jsonb_each_text(new.maintenance_env_sealed)
        ) s (sealed)
        where substring(s.sealed for 5) <> substring(mark for 5)
    ) then
        raise exception 'this is sealed by a key that is not the current one: start the server anew with the current key file'
            using errcode = 'check_violation', constraint = 'sealed_by_the_current_key';
    end if;
    return new;
end $$;

drop trigger sealed_by_the_current_key on host_repositories;
create trigger sealed_by_the_current_key
    before insert or update of password_sealed, env_sealed, maintenance_password_sealed, maintenance_env_sealed on host_repositories
    for each row execute function sealed_by_the_current_key();
