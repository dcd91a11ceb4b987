-- commit_changes(): the one way in which the ledger changes. One call is one transaction of many commands from one process (group commit).
--
-- The advisory lock is taken first, not after the rows: calls are then one after the other, so no two of them can deadlock whatever order
-- their commands come in, and revision order is commit order. The time it is held is that of the call plus the commit, as it would be anyway (docs/adr/0007).
--
-- A command: {kind, path, actor: {principal, requestId, traceId, action, capability, peer, cause}, at, lease, request: {id, hash} | null, args}.
-- A handler answers {ok: true, result, event, version} or {ok: false, reason, metadata}, and has changed nothing when it says false.

create function refuse(reason text, metadata jsonb default '{}') returns jsonb language sql immutable
as $$ select jsonb_build_object('ok', false, 'reason', reason, 'metadata', metadata) $$;

create function done(result jsonb, event jsonb default null, version bigint default null) returns jsonb language sql immutable
as $$ select jsonb_build_object('ok', true, 'result', result, 'event', event, 'version', version) $$;

-- Exact to the microsecond, in UTC, so that a program can read it back without loss.
create function iso(t timestamptz) returns text language sql immutable
as $$ select to_char(t at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;

-- ---------------------------------------------------------------------------------------------------------------- secrets

create function secret_put(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  s secret%rowtype;
  v bigint := (a->>'version')::bigint;
  expected bigint := (a->>'expected_version')::bigint;
begin
  select * into s from secret where namespace_id = 1 and path = c->>'path' for update;
  if not found then
    if coalesce(expected, 0) <> 0 then return refuse('VERSION_MISMATCH', '{"actual":"0"}'); end if;
    if v <> 1 then return refuse('STALE'); end if;
    insert into secret (uid, namespace_id, path, latest_version, current_version, created_at, updated_at)
      values ((a->>'uid')::uuid, 1, c->>'path', 1, 1, t, t);
  else
    if s.deleted_at is not null then return refuse('SECRET_DELETED'); end if;
    if expected is not null and expected <> s.latest_version then
      return refuse('VERSION_MISMATCH', jsonb_build_object('actual', s.latest_version::text));
    end if;
    if v <> s.latest_version + 1 or (a->>'uid')::uuid <> s.uid then return refuse('STALE'); end if;
    update secret set latest_version = v, current_version = v, previous_version = s.current_version, generation = generation + 1, updated_at = t
      where uid = s.uid;
    delete from secret_version where secret_uid = s.uid and version <= v - s.max_versions and version <> s.current_version;
  end if;
  insert into secret_version (secret_uid, version, sealed, key_id, created_at, created_by, not_before, expire_at)
    values ((a->>'uid')::uuid, v, decode(a->>'sealed', 'base64'), (a->>'key_id')::integer, t, c->'actor'->>'principal',
            (a->>'not_before')::timestamptz, (a->>'expire_at')::timestamptz);
  return done(jsonb_build_object('version', v, 'created_at', iso(t)), jsonb_build_object('type', 1, 'version', v, 'versions', jsonb_build_array(v)), v);
end $$;

-- Locks the secret and says why it can't be changed; null when it can.
create function secret_refusal(c jsonb) returns jsonb language plpgsql as $$
declare
  s secret%rowtype;
begin
  select * into s from secret where namespace_id = 1 and path = c->>'path' for update;
  if not found then return refuse('SECRET_NOT_FOUND'); end if;
  if s.deleted_at is not null then return refuse('SECRET_DELETED'); end if;
  if coalesce(c->'args'->>'etag', '') <> '' and c->'args'->>'etag' <> s.generation::text then
    return refuse('VERSION_MISMATCH', jsonb_build_object('actual', s.generation::text));
  end if;
  return null;
end $$;

create function secret_update_metadata(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r jsonb := secret_refusal(c);
  s secret%rowtype;
begin
  if r is not null then return r; end if;
  update secret set labels = coalesce(a->'labels', labels), annotations = coalesce(a->'annotations', annotations),
      max_versions = coalesce((a->>'max_versions')::integer, max_versions), generation = generation + 1, updated_at = t
    where namespace_id = 1 and path = c->>'path' returning * into s;
  delete from secret_version where secret_uid = s.uid and version <= s.latest_version - s.max_versions and version not in (s.current_version, s.previous_version);
  return done('{}', '{"type":5}');
end $$;

-- kind: secret.delete_versions, secret.undelete_versions, secret.destroy_versions
create function secret_versions(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  wanted bigint[] := array(select x::bigint from jsonb_array_elements_text(c->'args'->'versions') x order by 1);
  r jsonb := secret_refusal(c);
  s secret%rowtype;
  n integer;
  missing bigint;
begin
  if r is not null then return r; end if;
  select * into s from secret where namespace_id = 1 and path = c->>'path';
  select w into missing from unnest(wanted) w where not exists (select from secret_version where secret_uid = s.uid and version = w) limit 1;
  if missing is not null then return refuse('VERSION_NOT_FOUND', jsonb_build_object('version', missing::text)); end if;
  if c->>'kind' <> 'secret.destroy_versions' then
    select version into missing from secret_version where secret_uid = s.uid and version = any (wanted) and destroyed_at is not null limit 1;
    if missing is not null then return refuse('VERSION_DESTROYED', jsonb_build_object('version', missing::text)); end if;
  end if;
  case c->>'kind'
    when 'secret.delete_versions' then
      update secret_version set deleted_at = coalesce(deleted_at, t) where secret_uid = s.uid and version = any (wanted);
    when 'secret.undelete_versions' then
      update secret_version set deleted_at = null where secret_uid = s.uid and version = any (wanted);
    else
      update secret_version set sealed = null, key_id = null, destroyed_at = coalesce(destroyed_at, t) where secret_uid = s.uid and version = any (wanted);
  end case;
  get diagnostics n = row_count;
  update secret set generation = generation + 1, updated_at = t where uid = s.uid;
  return done('{}', jsonb_build_object('type', case c->>'kind' when 'secret.delete_versions' then 2 when 'secret.undelete_versions' then 3 else 4 end,
    'version', wanted[cardinality(wanted)], 'versions', to_jsonb(wanted)), wanted[cardinality(wanted)]);
end $$;

create function secret_delete(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  r jsonb := secret_refusal(c);
  until timestamptz := t + make_interval(secs => (c->'args'->>'recovery_ms')::double precision / 1000);
begin
  if r is not null then return r; end if;
  update secret set deleted_at = t, purge_at = until, generation = generation + 1, updated_at = t where namespace_id = 1 and path = c->>'path';
  return done(jsonb_build_object('purge_at', iso(until)), '{"type":6,"removed":true}');
end $$;

create function secret_restore(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  s secret%rowtype;
begin
  select * into s from secret where namespace_id = 1 and path = c->>'path' for update;
  if not found or s.purge_at <= t then return refuse('SECRET_NOT_FOUND'); end if;
  if s.deleted_at is null then return refuse('VERSION_MISMATCH', '{"actual":"not deleted"}'); end if;
  update secret set deleted_at = null, purge_at = null, generation = generation + 1, updated_at = t where uid = s.uid;
  return done('{}', jsonb_build_object('type', 7, 'version', s.current_version));
end $$;

create function secret_purge(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
begin
  delete from secret where namespace_id = 1 and path = c->>'path' and purge_at <= t;
  if not found then return refuse('SECRET_NOT_FOUND'); end if;
  return done('{}', '{"type":8,"removed":true}');
end $$;

-- -------------------------------------------------------------------------------------------- policies, targets, roles, keyring

create function policy_put(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  p policy%rowtype;
  etag text := coalesce(a->>'etag', '');
begin
  select * into p from policy where namespace_id = 1 and name = a->>'name' for update;
  if not found then
    if etag <> '' then return refuse('VERSION_MISMATCH', '{"actual":"absent"}'); end if;
    insert into policy (uid, namespace_id, name, document, generation, updated_at, updated_by)
      values (gen_random_uuid(), 1, a->>'name', (a->>'document')::json, 1, t, c->'actor'->>'principal') returning * into p;
  else
    if etag not in ('', '*', p.generation::text) then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', p.generation::text)); end if;
    update policy set document = (a->>'document')::json, generation = generation + 1, updated_at = t, updated_by = c->'actor'->>'principal'
      where uid = p.uid returning * into p;
  end if;
  return done(jsonb_build_object('uid', p.uid, 'generation', p.generation, 'updated_at', iso(t)), '{"type":40}');
end $$;

create function policy_delete(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  p policy%rowtype;
  etag text := coalesce(c->'args'->>'etag', '');
begin
  select * into p from policy where namespace_id = 1 and name = c->'args'->>'name' for update;
  if not found then return refuse('POLICY_NOT_FOUND'); end if;
  if etag not in ('', '*', p.generation::text) then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', p.generation::text)); end if;
  delete from policy where uid = p.uid;
  return done('{}', '{"type":40,"removed":true}');
end $$;

create function target_put(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
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
        generation = generation + 1, updated_at = t, updated_by = c->'actor'->>'principal'
      where uid = x.uid returning * into x;
  end if;
  return done(jsonb_build_object('uid', x.uid, 'generation', x.generation, 'updated_at', iso(t)), '{"type":41}');
end $$;

create function target_delete(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  x target%rowtype;
begin
  select * into x from target where namespace_id = 1 and name = c->'args'->>'name' for update;
  if not found then return refuse('TARGET_NOT_FOUND'); end if;
  if exists (select from role where target_uid = x.uid) then return refuse('IN_USE', '{"by":"role"}'); end if;
  if exists (select from lease where target_uid = x.uid) then return refuse('IN_USE', '{"by":"lease"}'); end if;
  delete from target where uid = x.uid;
  return done('{}', '{"type":41,"removed":true}');
end $$;

create function role_put(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  x role%rowtype;
  target_id uuid;
  etag text := coalesce(a->>'etag', '');
begin
  select uid into target_id from target where namespace_id = 1 and name = a->>'target' and engine = a->>'engine' for share;
  if not found then return refuse('TARGET_NOT_FOUND'); end if;
  select * into x from role where namespace_id = 1 and path = c->>'path' for update;
  if not found then
    if etag <> '' then return refuse('VERSION_MISMATCH', '{"actual":"absent"}'); end if;
    insert into role (uid, namespace_id, path, target_uid, document, generation, updated_at, updated_by)
      values (gen_random_uuid(), 1, c->>'path', target_id, (a->>'document')::json, 1, t, c->'actor'->>'principal') returning * into x;
  else
    if etag not in ('', '*', x.generation::text) then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', x.generation::text)); end if;
    update role set target_uid = target_id, document = (a->>'document')::json, generation = generation + 1, updated_at = t, updated_by = c->'actor'->>'principal'
      where uid = x.uid returning * into x;
  end if;
  return done(jsonb_build_object('uid', x.uid, 'generation', x.generation, 'updated_at', iso(t)), '{"type":42}');
end $$;

create function role_delete(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
begin
  delete from role where namespace_id = 1 and path = c->>'path';
  if not found then return refuse('ROLE_NOT_FOUND'); end if;
  return done('{}', '{"type":42,"removed":true}');
end $$;

create function keyring_rotate(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  insert into keyring_seed (id, provider, kms_key_id, wrapped, created_at)
    values ((a->>'id')::integer, a->>'provider', a->>'kms_key_id', decode(a->>'wrapped', 'base64'), t) on conflict do nothing;
  if not found then return refuse('STALE'); end if;
  return done(jsonb_build_object('id', (a->>'id')::integer), '{"type":43}');
end $$;

-- ------------------------------------------------------------------------------------------------------------------ operations

create function operation_create(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  insert into operation (id, namespace_id, kind, state, args, principal, created_at, updated_at)
    values ((a->>'id')::uuid, 1, a->>'kind', 'RUNNING', a->'args', c->'actor'->>'principal', t, t);
  return done(jsonb_build_object('id', a->>'id', 'created_at', iso(t)));
end $$;

-- RUNNING to a terminal state; anything else stays as it is.
create function operation_finish(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  update operation set state = a->>'state', problem = coalesce(a->>'problem', ''), updated_at = t, claimed_until = null where id = (a->>'id')::uuid and state = 'RUNNING';
  if not found and not exists (select from operation where id = (a->>'id')::uuid) then return refuse('OPERATION_NOT_FOUND'); end if;
  return done('{}');
end $$;
