-- What an adversarial reading of 0011 found: a deleted secret's rotation was tried on and counted as stuck for ever, one that kept failing while it waited or went through candidates was never seen to be stuck, two rotations
-- could take turns in locking each other's application out, and the time that was announced left the conditions out.

-- A login is one rotation's: two of them would set each other's password anew without knowing.
create table rotation_login (
  namespace_id smallint not null references namespace,
  target text not null,
  login text collate "C" not null,
  rotation_uid uuid not null references rotation on delete cascade,
  primary key (namespace_id, target, login)
);
create index rotation_login_of on rotation_login (rotation_uid);
insert into rotation_login (namespace_id, target, login, rotation_uid)
  select 1, r.target, l.login, r.uid from rotation r, lateral (
      select r.document->'config'->>'username' as login where r.rotator in ('postgres_single_user', 'redis_acl')
      union all select x from json_array_elements_text(case when r.rotator = 'postgres_alternating_users' then r.document->'config'->'usernames' else '[]' end) x) l
    where r.target <> '' and l.login is not null order by r.created_at on conflict do nothing;
create index rotation_target on rotation (namespace_id, target) where target <> '';

-- A rotation that is deleted and put again goes on counting: whoever fences by generation outside would refuse it for as many candidates as there were.
alter table secret add column rotation_generation bigint not null default 0;

-- When the next one begins by itself, as far as it is known: the plan, or a condition on CURRENT that comes first (as lookAfter in src/rotation/policy.ts has it). Null while aborted.
create function rotation_next(r rotation) returns timestamptz language sql stable as $$
  select case when r.state <> 'ABORTED' then least(r.planned_at,
      v.created_at + (r.document->'policy'->'conditions'->>'maxAgeMs')::bigint * interval '1 ms',
      case when r.document->'policy'->'conditions'->>'beforeExpiryMs' is not null then greatest(v.expire_at - (r.document->'policy'->'conditions'->>'beforeExpiryMs')::bigint * interval '1 ms', v.created_at + (v.expire_at - v.created_at) / 2) end) end
    from secret s left join secret_version v on v.secret_uid = s.uid and v.version = s.current_version where s.uid = r.secret_uid
$$;

-- However a rotation goes, with its secret or by itself: what was found about it is over.
create function rotation_gone() returns trigger language plpgsql as $$
begin
  perform rotation_unstuck(old, 'rotation gone', leasehold_now());
  return null;
end $$;
create trigger rotation_gone after delete on rotation for each row execute function rotation_gone();
update finding set state = 'RESOLVED', resolution = 'rotation gone' where kind = 'ROTATION_STUCK' and state = 'OPEN' and not exists (select from rotation where uid = target_uid);

-- Said once, until it is over.
create function rotation_stuck(r rotation, t timestamptz) returns void language sql as $$
  update rotation set stuck_since = coalesce(step_at, t) where uid = r.uid;
  insert into finding (id, namespace_id, kind, target_uid, name, first_seen, last_seen) values (gen_random_uuid(), 1, 'ROTATION_STUCK', r.uid, r.path, t, t) on conflict do nothing
$$;

-- A finding during a rotation, or while it is aborted, is one that the next look knows of.
create or replace function rotation_found() returns trigger language plpgsql as $$
begin
  update rotation set finding_at = new.first_seen, due_at = case when state = 'WAITING' then new.first_seen else due_at end, turn = turn + (state = 'WAITING')::integer
    where on_finding and target <> '' and target = (select name from target where uid = new.target_uid);
  return null;
end $$;

-- As in 0011. Nobody goes on with it: who has it in his hands finds his turn gone.
create or replace function secret_delete(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  r jsonb := secret_refusal(c);
  until timestamptz := t + make_interval(secs => (c->'args'->>'recovery_ms')::double precision / 1000);
  x rotation%rowtype;
begin
  if r is not null then return r; end if;
  update secret set deleted_at = t, purge_at = until, generation = generation + 1, updated_at = t where namespace_id = 1 and path = c->>'path';
  update rotation set due_at = null, turn = turn + 1, stuck_since = null where namespace_id = 1 and path = c->>'path' returning * into x;
  if x.uid is not null then perform rotation_unstuck(x, 'secret deleted', t); end if;
  return done(jsonb_build_object('purge_at', iso(until)), '{"type":6,"removed":true}');
end $$;

-- As in 0011, but what another may still be doing is over first.
create or replace function secret_restore(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  s secret%rowtype;
begin
  select * into s from secret where namespace_id = 1 and path = c->>'path' for update;
  if not found or s.purge_at <= t then return refuse('SECRET_NOT_FOUND'); end if;
  if s.deleted_at is null then return refuse('VERSION_MISMATCH', '{"actual":"not deleted"}'); end if;
  update secret set deleted_at = null, purge_at = null, generation = generation + 1, updated_at = t where uid = s.uid;
  update rotation set due_at = greatest(t, held_until, case when step in ('FINISH', 'RESTORE') then settled_at end), turn = turn + 1 where secret_uid = s.uid and state <> 'ABORTED';
  return done('{}', jsonb_build_object('type', 7, 'version', s.current_version));
end $$;

-- As in 0009.
create or replace function target_delete(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  x target%rowtype;
begin
  select * into x from target where namespace_id = 1 and name = c->'args'->>'name' for update;
  if not found then return refuse('TARGET_NOT_FOUND'); end if;
  if exists (select from role where target_uid = x.uid) then return refuse('IN_USE', '{"by":"role"}'); end if;
  if exists (select from rotation where namespace_id = 1 and target = x.name) then return refuse('IN_USE', '{"by":"rotation"}'); end if;
  if exists (select from lease where target_uid = x.uid and live) then return refuse('IN_USE', '{"by":"lease"}'); end if;
  update lease set next_action_at = null where target_uid = x.uid and next_action_at is not null;
  delete from quarantine where target_uid = x.uid;
  delete from target_sight where target_uid = x.uid;
  update finding set state = 'RESOLVED', resolution = 'target deleted', last_seen = t where target_uid = x.uid and state = 'OPEN';
  delete from target where uid = x.uid;
  return done('{}', '{"type":41,"removed":true}');
end $$;

-- Whether a candidate is, or may be, what the outside accepts now: the rotation must first go on or be aborted.
create function rotation_is_open(r rotation) returns boolean language sql immutable as $$
  select r.state = 'RUNNING' and (r.step <> 'CREATE' or cardinality(r.given_up) > 0)
$$;

-- As in 0011; `logins`: of the target, that nobody else's rotation may set. (A broker before 0016 says nothing of them.)
create or replace function rotation_put(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  s secret%rowtype;
  r rotation%rowtype;
  etag text := coalesce(a->>'etag', '');
  taken text;
begin
  select * into s from secret where namespace_id = 1 and path = c->>'path' for update;
  if found and s.deleted_at is not null then return refuse('SECRET_DELETED'); end if;
  if (not found or s.current_version = 0) and not (a->>'from_nothing')::boolean then return refuse('SECRET_NOT_FOUND'); end if;
  select * into r from rotation where secret_uid = s.uid for update;
  select l.login into taken from rotation_login l
    where l.namespace_id = 1 and l.target = a->>'target' and l.login in (select jsonb_array_elements_text(a->'logins')) and l.rotation_uid is distinct from r.uid limit 1;
  if taken is not null then return refuse('IN_USE', jsonb_build_object('by', 'rotation', 'login', taken)); end if;
  if r.uid is null then
    if etag <> '' then return refuse('VERSION_MISMATCH', '{"actual":"absent"}'); end if;
    if (a->>'edition')::bigint <> 0 then return refuse('STALE'); end if;
    if s.uid is null then
      insert into secret (uid, namespace_id, path, latest_version, current_version, created_at, updated_at)
        values ((a->>'secret_uid')::uuid, 1, c->>'path', 0, 0, t, t) returning * into s;
    end if;
    insert into rotation (uid, namespace_id, path, secret_uid, rotator, target, document, state, generation, settled_at, due_at, planned_at, window_ends_at, max_reads, on_finding, follows_current, created_at, updated_at, updated_by)
      values ((a->>'uid')::uuid, 1, c->>'path', s.uid, a->>'rotator', a->>'target', (a->>'document')::json, 'WAITING', s.rotation_generation, t, t, (a->>'planned_at')::timestamptz, (a->>'window_ends_at')::timestamptz,
        (a->>'max_reads')::bigint, (a->>'on_finding')::boolean, (a->>'follows_current')::boolean, t, t, c->'actor'->>'principal') returning * into r;
  else
    if etag not in ('', '*', r.edition::text) then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', r.edition::text)); end if;
    if (a->>'edition')::bigint <> r.edition then return refuse('STALE'); end if;
    if (a->>'restarts')::boolean and rotation_is_open(r) then return refuse('ROTATION_IN_PROGRESS', jsonb_build_object('step', r.step)); end if;
    update rotation set rotator = a->>'rotator', target = a->>'target', document = (a->>'document')::json, edition = edition + 1, turn = turn + 1,
        planned_at = case when state = 'ABORTED' then null when (a->>'planned')::boolean then (a->>'planned_at')::timestamptz else planned_at end,
        window_ends_at = case when state = 'ABORTED' then null when (a->>'planned')::boolean then (a->>'window_ends_at')::timestamptz else window_ends_at end,
        max_reads = (a->>'max_reads')::bigint, on_finding = (a->>'on_finding')::boolean, follows_current = (a->>'follows_current')::boolean,
        due_at = case when state = 'WAITING' then t else due_at end, updated_at = t, updated_by = c->'actor'->>'principal'
      where uid = r.uid returning * into r;
  end if;
  if a ? 'logins' then
    delete from rotation_login where rotation_uid = r.uid;
    insert into rotation_login (namespace_id, target, login, rotation_uid) select distinct 1, r.target, x, r.uid from jsonb_array_elements_text(a->'logins') x;
  end if;
  if (a->>'rotate_now')::boolean and r.state <> 'RUNNING' then
    perform rotation_start(r, s, 'requested', t, t, c->'actor'->>'traceId');
    select * into r from rotation where uid = r.uid;
  end if;
  return done(jsonb_build_object('uid', r.uid, 'edition', r.edition), jsonb_build_object('type', 57, 'expire_at', iso(rotation_next(r))));
end $$;

-- As in 0011; says which generation's candidate was given up. A deleted secret's is restored outside when the secret is.
create or replace function rotation_abort(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  r rotation := rotation_at(c->>'path');
  restore boolean;
  deleted boolean;
begin
  if r.uid is null then return refuse('ROTATION_NOT_FOUND'); end if;
  if r.state = 'ABORTED' or r.step = 'RESTORE' then return done(jsonb_build_object('uid', r.uid)); end if;
  select deleted_at is not null into deleted from secret where uid = r.secret_uid;
  restore := (c->'args'->>'restorable')::boolean and (r.step in ('SET', 'TEST') or (r.step = 'CREATE' and cardinality(r.given_up) > 0));
  perform rotation_drop_candidate(r, t);
  update rotation set state = case when restore then 'RUNNING' else 'ABORTED' end, step = case when restore then 'RESTORE' end, turn = turn + 1, generation = generation + 1, attempts = 0, failures = 0,
      problem = '', step_at = t, stuck_since = null, held_until = null, planned_at = null, window_ends_at = null,
      -- What a worker may still be doing is over first: it would overtake us.
      due_at = case when restore and not deleted then greatest(t, r.settled_at) end
    where uid = r.uid;
  perform rotation_unstuck(r, 'aborted', t);
  return done(jsonb_build_object('uid', r.uid, 'given_up', case when r.step in ('SET', 'TEST') then r.pending_version end, 'generation', r.generation),
    jsonb_build_object('type', 56, 'version', r.pending_version));
end $$;

-- As in 0011.
create or replace function rotation_resume(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_at(c->>'path');
begin
  if r.uid is null then return refuse('ROTATION_NOT_FOUND'); end if;
  if exists (select from secret where uid = r.secret_uid and deleted_at is not null) then return refuse('SECRET_DELETED'); end if;
  if r.state = 'RUNNING' then
    update rotation set due_at = least(due_at, greatest(t, held_until, case when step in ('FINISH', 'RESTORE') then settled_at end)) where uid = r.uid;
    return done(jsonb_build_object('uid', r.uid));
  end if;
  if r.state = 'WAITING' then
    update rotation set due_at = least(due_at, greatest(t, held_until)) where uid = r.uid and problem <> '';
    return done(jsonb_build_object('uid', r.uid));
  end if;
  update rotation set state = 'WAITING', turn = turn + 1, planned_at = (a->>'planned_at')::timestamptz, window_ends_at = (a->>'window_ends_at')::timestamptz, due_at = t where uid = r.uid returning * into r;
  return done(jsonb_build_object('uid', r.uid), jsonb_build_object('type', 57, 'expire_at', iso(rotation_next(r))));
end $$;

-- As in 0011.
create or replace function rotation_delete(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  r rotation := rotation_at(c->>'path');
  etag text := coalesce(c->'args'->>'etag', '');
begin
  if r.uid is null then return refuse('ROTATION_NOT_FOUND'); end if;
  if etag not in ('', '*', r.edition::text) then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', r.edition::text)); end if;
  if rotation_is_open(r) then return refuse('ROTATION_IN_PROGRESS', jsonb_build_object('step', r.step)); end if;
  delete from rotation where uid = r.uid;
  update secret set rotation_generation = r.generation where uid = r.secret_uid;
  delete from secret where uid = r.secret_uid and latest_version = 0;
  return done('{}', '{"type":57,"removed":true}');
end $$;

-- As in 0011. A look that went well ends what looks before it had failed at.
create or replace function rotation_plan(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
  was timestamptz := r.planned_at;
begin
  if r.uid is null or r.state <> 'WAITING' then return refuse('STALE'); end if;
  if r.attempts > 0 then perform rotation_unstuck(r, 'went on', t); end if;
  update rotation set turn = turn + 1, held_until = null, due_at = (a->>'due_at')::timestamptz, planned_at = (a->>'planned_at')::timestamptz, window_ends_at = (a->>'window_ends_at')::timestamptz,
      problem = '', attempts = 0, stuck_since = null
    where uid = r.uid returning * into r;
  return done('{}', case when r.planned_at is distinct from was then jsonb_build_object('type', 57, 'expire_at', iso(rotation_next(r))) end);
end $$;

-- As in 0011; `WAITING`, where a look failed before, has its finding too.
create or replace function rotation_begin(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
  s secret%rowtype;
begin
  if r.uid is null or r.state <> 'WAITING' then return refuse('STALE'); end if;
  select * into s from secret where uid = r.secret_uid;
  if s.deleted_at is not null then return refuse('STALE'); end if;
  if r.attempts > 0 then perform rotation_unstuck(r, 'went on', t); end if;
  perform rotation_start(r, s, a->>'cause', t, t, c->'actor'->>'traceId');
  return done(rotation_hold(r.uid, (a->>'claim_ms')::bigint, t), '{"type":50}');
end $$;

-- As in 0011. With candidates that were given up before it, it has not got on until one of them is CURRENT.
create or replace function rotation_went_on(r rotation, next_step text, pending bigint, t timestamptz) returns void language plpgsql as $$
begin
  update rotation set step = next_step, step_at = t, turn = turn + 1, pending_version = pending, attempts = 0,
      problem = case when cardinality(given_up) > 0 then problem else '' end, stuck_since = case when cardinality(given_up) > 0 then stuck_since end
    where uid = r.uid;
  if cardinality(r.given_up) = 0 then perform rotation_unstuck(r, 'went on', t); end if;
end $$;

create or replace function rotation_stage(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
  s secret%rowtype;
  v bigint := (a->>'version')::bigint;
begin
  if r.uid is null or r.state <> 'RUNNING' or r.step <> 'CREATE' then return refuse('STALE'); end if;
  select * into s from secret where uid = r.secret_uid;
  if s.deleted_at is not null then return refuse('SECRET_DELETED'); end if;
  if s.latest_version + 1 <> v or s.current_version <> r.base_version then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', s.latest_version::text)); end if;
  insert into secret_version (secret_uid, version, sealed, key_id, created_at, created_by, expire_at)
    values (s.uid, v, decode(a->>'sealed', 'base64'), (a->>'key_id')::integer, t, 'system', (a->>'expire_at')::timestamptz);
  delete from secret_version where secret_uid = s.uid and version <= v - s.max_versions and version < s.current_version and version <> s.previous_version;
  update secret set latest_version = v, pending_version = v, generation = generation + 1, updated_at = t where uid = s.uid;
  perform rotation_went_on(r, 'SET', v, t);
  return done(rotation_hold(r.uid, (a->>'claim_ms')::bigint, t), jsonb_build_object('type', 51, 'version', v), v);
end $$;

create or replace function rotation_was_set(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
begin
  if r.uid is null or r.state <> 'RUNNING' or r.step <> 'SET' then return refuse('STALE'); end if;
  perform rotation_went_on(r, 'TEST', r.pending_version, t);
  return done(rotation_hold(r.uid, (a->>'claim_ms')::bigint, t), jsonb_build_object('type', 52, 'version', r.pending_version), r.pending_version);
end $$;

-- As in 0011.
create or replace function rotation_promote(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
  s secret%rowtype;
begin
  if r.uid is null or r.state <> 'RUNNING' or r.step <> 'TEST' then return refuse('STALE'); end if;
  select * into s from secret where uid = r.secret_uid;
  if s.deleted_at is not null then return refuse('SECRET_DELETED'); end if;
  if s.current_version <> r.base_version or s.pending_version <> r.pending_version then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', s.current_version::text)); end if;
  update secret set previous_version = current_version, current_version = pending_version, pending_version = 0, generation = generation + 1, updated_at = t where uid = s.uid;
  perform rotation_unstuck(r, 'went on', t);
  update rotation set step = 'FINISH', step_at = t, turn = turn + 1, attempts = 0, failures = 0, problem = '', stuck_since = null, last_at = t, held_until = null, reads = 0, reads_version = r.pending_version,
      planned_at = (a->>'planned_at')::timestamptz, window_ends_at = (a->>'window_ends_at')::timestamptz, due_at = case when (a->>'waits')::boolean then greatest(t, settled_at) else t end
    where uid = r.uid returning * into r;
  return done('{}', jsonb_build_object('type', 55, 'version', r.pending_version, 'versions', jsonb_build_array(r.pending_version), 'expire_at', iso(rotation_next(r))), r.pending_version);
end $$;

-- As in 0011. What was found about its target since it began makes it look at once.
create or replace function rotation_finish(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
begin
  if r.uid is null or r.state <> 'RUNNING' or r.step not in ('FINISH', 'RESTORE') then return refuse('STALE'); end if;
  update rotation set state = case r.step when 'RESTORE' then 'ABORTED' else 'WAITING' end, step = null, step_at = null, turn = turn + 1, pending_version = 0, given_up = '{}', attempts = 0, failures = 0,
      problem = '', stuck_since = null, held_until = null, due_at = case when r.step = 'FINISH' then case when finding_at is null then (a->>'due_at')::timestamptz else t end end
    where uid = r.uid;
  perform rotation_unstuck(r, 'went on', t);
  return done('{}', case r.step when 'FINISH' then jsonb_build_object('type', 54, 'version', r.pending_version, 'expire_at', iso(rotation_next(r))) end, nullif(r.pending_version, 0));
end $$;

-- As in 0011; a look of a waiting one that fails counts as a try.
create or replace function rotation_fail(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
  newly boolean;
begin
  if r.uid is null then return refuse('STALE'); end if;
  newly := (a->>'stuck')::boolean and r.stuck_since is null;
  update rotation set turn = turn + 1, problem = a->>'problem', attempts = attempts + (state = 'WAITING')::integer, failures = failures + (a->>'counts')::boolean::integer, held_until = null,
      due_at = t + (a->>'next_ms')::bigint * interval '1 ms'
    where uid = r.uid;
  if newly then perform rotation_stuck(r, t); end if;
  return done(jsonb_build_object('newly', newly), case when newly then jsonb_build_object('type', 56, 'version', r.pending_version) end);
end $$;

-- As in 0011; `problem`: why; `stuck`: so many were given up that it counts as stuck.
create or replace function rotation_give_up(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
begin
  if r.uid is null or r.state <> 'RUNNING' or r.step not in ('CREATE', 'SET', 'TEST') then return refuse('STALE'); end if;
  perform rotation_drop_candidate(r, t);
  if coalesce((a->>'stuck')::boolean, false) and r.stuck_since is null then perform rotation_stuck(r, t); end if;
  update rotation set step = 'CREATE', step_at = coalesce(stuck_since, t), turn = turn + 1, generation = generation + 1, base_version = (select current_version from secret where uid = r.secret_uid), attempts = 0, failures = 0,
      problem = coalesce(a->>'problem', problem), held_until = null, due_at = t + (a->>'next_ms')::bigint * interval '1 ms'
    where uid = r.uid;
  return done('{}', jsonb_build_object('type', 56, 'version', r.pending_version), nullif(r.pending_version, 0));
end $$;
