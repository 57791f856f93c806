-- Nothing is sealed by another key than the one that the mark is sealed by,
-- whoever writes: a server that has not heard of a rotation must not leave a
-- row behind that the new key can't open. The name of a key is the first five
-- bytes of what it sealed. The mark's row is held, so that a rotation waits.
create function sealed_by_the_current_key() returns trigger language plpgsql as $$
declare
    mark bytea;
begin
    select sealed into mark from sealing_check for share;
    if found and exists (
        select from (select new.password_sealed union all select decode(value, 'base64') from jsonb_each_text(new.env_sealed)) s (sealed)
        where substring(s.sealed for 5) <> substring(mark for 5)
    ) then
        raise exception 'this is sealed by a key that is not the current one: start the server anew with the current key file'
            using errcode = 'check_violation', constraint = 'sealed_by_the_current_key';
    end if;
    return new;
end $$;

create trigger sealed_by_the_current_key before insert or update of password_sealed, env_sealed on host_repositories
    for each row execute function sealed_by_the_current_key();
