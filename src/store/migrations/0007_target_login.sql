-- The broker's own login on a target is rotated between two (src/catalog/rotate-login.ts). `login` is the one in use where it is not the configured one; `other_login` its twin, whose last password still works.
-- The candidate is in the row before the target hears of it: no crash can lose a password that was set.
alter table target
  add column login text,
  add column other_login text,
  add column pending_login text,
  add column pending_password bytea,
  add column pending_key_id integer,
  add column pending_since timestamptz;

-- As in 0002; a new password is that of the configured login, so what was rotated is over.
create or replace function target_put(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  x target%rowtype;
  etag text := coalesce(a->>'etag', '');
begin
  select * into x from target where namespace_id = 1 and name = a->>'name' for update;
  if not found then
    if etag <> '' then return refuse('VERSION_MISMATCH', '{"actual":"absent"}'); end if;
    if (a->>'generation')::bigint <> 0 then return refuse('STALE'); end if;
    insert into target (uid, namespace_id, name, engine, document, sealed_password, key_id, generation, updated_at, updated_by)
      values ((a->>'uid')::uuid, 1, a->>'name', a->>'engine', (a->>'document')::json, decode(a->>'sealed', 'base64'), (a->>'key_id')::integer, 1, t, c->'actor'->>'principal')
      returning * into x;
  else
    if etag not in ('', '*', x.generation::text) then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', x.generation::text)); end if;
    -- The caller decided on the row it read (whether the password may stay): it must still be that row.
    if (a->>'generation')::bigint <> x.generation or (a->>'uid')::uuid <> x.uid then return refuse('STALE'); end if;
    update target set engine = a->>'engine', document = (a->>'document')::json,
        sealed_password = coalesce(decode(a->>'sealed', 'base64'), sealed_password), key_id = coalesce((a->>'key_id')::integer, key_id),
        login = case when a->>'sealed' is null then login end, pending_login = case when a->>'sealed' is null then pending_login end,
        pending_password = case when a->>'sealed' is null then pending_password end, pending_key_id = case when a->>'sealed' is null then pending_key_id end,
        generation = generation + 1, updated_at = t, updated_by = c->'actor'->>'principal'
      where uid = x.uid returning * into x;
  end if;
  return done(jsonb_build_object('uid', x.uid, 'generation', x.generation, 'updated_at', iso(t)), '{"type":41}');
end $$;

-- args: uid, generation, login, sealed, key_id. STALE: the target was changed, or there is a candidate already.
create function target_stage_login(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  update target set pending_login = a->>'login', pending_password = decode(a->>'sealed', 'base64'), pending_key_id = (a->>'key_id')::integer, pending_since = t
    where uid = (a->>'uid')::uuid and generation = (a->>'generation')::bigint and pending_login is null;
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

-- args: uid, generation, login. The candidate was set and has logged in: it is the one in use. STALE: somebody else said so, or the target was changed.
create function target_promote_login(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  update target set other_login = coalesce(login, document->>'username'), login = pending_login, sealed_password = pending_password, key_id = pending_key_id,
      pending_login = null, pending_password = null, pending_key_id = null, pending_since = null, generation = generation + 1, updated_at = t, updated_by = c->'actor'->>'principal'
    where uid = (a->>'uid')::uuid and generation = (a->>'generation')::bigint and pending_login = a->>'login';
  if not found then return refuse('STALE'); end if;
  return done(jsonb_build_object('login', a->>'login'), '{"type":41}');
end $$;
insert into change_kind (kind, handler) values ('target.stage_login', 'target_stage_login'), ('target.promote_login', 'target_promote_login');
