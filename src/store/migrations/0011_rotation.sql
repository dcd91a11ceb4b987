-- Rotations: what gives a secret a new value by itself. `turn` is the fence of the ledger: every claim and every move counts it, so that of two workers the one with the older number changes nothing any more.
-- `generation` is the fence of the outside: it grows with every candidate. States and steps: src/model/rotation.ts.

-- The candidate under way: committed and sealed before the outside hears of it.
alter table secret add column pending_version bigint not null default 0;

create table rotation (
  uid uuid primary key,
  namespace_id smallint not null references namespace,
  -- Of the secret.
  path text collate "C" not null,
  secret_uid uuid not null unique references secret on delete cascade,
  rotator text not null,
  -- Name of the target it works on; empty: none.
  target text not null,
  document json not null,
  -- Counts what was put; the etag.
  edition bigint not null default 1,
  state text not null check (state in ('WAITING', 'RUNNING', 'ABORTED')),
  step text check (step in ('CREATE', 'SET', 'TEST', 'FINISH', 'RESTORE')),
  turn bigint not null default 1,
  generation bigint not null default 0,
  -- CURRENT when the candidate was begun: of another one it is no successor.
  base_version bigint not null default 0,
  pending_version bigint not null default 0,
  -- Since the last success, newest first: one of them may be what the outside accepts now.
  given_up bigint[] not null default '{}',
  -- Times this step was taken up; failures of this candidate.
  attempts integer not null default 0,
  failures integer not null default 0,
  problem text not null default '',
  step_at timestamptz,
  stuck_since timestamptz,
  -- From here on nothing that any worker has begun can change the outside.
  settled_at timestamptz not null,
  held_until timestamptz,
  -- The schedule's truth: when to look next.
  due_at timestamptz,
  -- When the next one is planned, and until when it may begin.
  planned_at timestamptz,
  window_ends_at timestamptz,
  last_at timestamptz,
  cause text not null default '',
  max_reads bigint not null default 0,
  reads bigint not null default 0,
  reads_version bigint not null default 0,
  on_finding boolean not null default false,
  finding_at timestamptz,
  -- Whether a new CURRENT changes when it is due.
  follows_current boolean not null default false,
  trace_id text not null default '',
  created_at timestamptz not null,
  updated_at timestamptz not null,
  updated_by text not null,
  unique (namespace_id, path)
);
create index rotation_due on rotation (due_at, uid) where due_at is not null;
create index rotation_stuck on rotation (namespace_id, path) where stuck_since is not null;

-- The kinds of findings grow with what can go wrong; src/store/reconcile.ts has the list.
alter table finding drop constraint if exists finding_kind_check;

create function rotation_found() returns trigger language plpgsql as $$
begin
  update rotation set finding_at = new.first_seen, due_at = new.first_seen
    where on_finding and state = 'WAITING' and target <> '' and target = (select name from target where uid = new.target_uid);
  return null;
end $$;
create trigger finding_raised after insert on finding for each row when (new.kind <> 'ROTATION_STUCK') execute function rotation_found();

-- As in 0002; a candidate under way is not pruned, and a rotation whose time depends on CURRENT looks again.
create or replace function secret_put(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
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
    delete from secret_version where secret_uid = s.uid and version <= v - s.max_versions and version not in (s.current_version, s.pending_version);
    update rotation set due_at = t where secret_uid = s.uid and state = 'WAITING' and follows_current;
  end if;
  insert into secret_version (secret_uid, version, sealed, key_id, created_at, created_by, not_before, expire_at)
    values ((a->>'uid')::uuid, v, decode(a->>'sealed', 'base64'), (a->>'key_id')::integer, t, c->'actor'->>'principal',
            (a->>'not_before')::timestamptz, (a->>'expire_at')::timestamptz);
  return done(jsonb_build_object('version', v, 'created_at', iso(t)), jsonb_build_object('type', 1, 'version', v, 'versions', jsonb_build_array(v)), v);
end $$;

create or replace function secret_update_metadata(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r jsonb := secret_refusal(c);
  s secret%rowtype;
begin
  if r is not null then return r; end if;
  update secret set labels = coalesce(a->'labels', labels), annotations = coalesce(a->'annotations', annotations),
      max_versions = coalesce((a->>'max_versions')::integer, max_versions), generation = generation + 1, updated_at = t
    where namespace_id = 1 and path = c->>'path' returning * into s;
  delete from secret_version where secret_uid = s.uid and version <= s.latest_version - s.max_versions and version not in (s.current_version, s.previous_version, s.pending_version);
  return done('{}', '{"type":5}');
end $$;

create or replace function secret_delete(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  r jsonb := secret_refusal(c);
  until timestamptz := t + make_interval(secs => (c->'args'->>'recovery_ms')::double precision / 1000);
begin
  if r is not null then return r; end if;
  update secret set deleted_at = t, purge_at = until, generation = generation + 1, updated_at = t where namespace_id = 1 and path = c->>'path';
  update rotation set due_at = null where namespace_id = 1 and path = c->>'path';
  return done(jsonb_build_object('purge_at', iso(until)), '{"type":6,"removed":true}');
end $$;

-- A secret that is restored is rotated again: what became due meanwhile is looked at now.
create or replace function secret_restore(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  s secret%rowtype;
begin
  select * into s from secret where namespace_id = 1 and path = c->>'path' for update;
  if not found or s.purge_at <= t then return refuse('SECRET_NOT_FOUND'); end if;
  if s.deleted_at is null then return refuse('VERSION_MISMATCH', '{"actual":"not deleted"}'); end if;
  update secret set deleted_at = null, purge_at = null, generation = generation + 1, updated_at = t where uid = s.uid;
  update rotation set due_at = t where secret_uid = s.uid and state <> 'ABORTED';
  return done('{}', jsonb_build_object('type', 7, 'version', s.current_version));
end $$;

-- ------------------------------------------------------------------------------------------------------------ what operators ask

-- Locks the rotation of a path and its secret; null when there is none. The secret first, as everybody does.
create function rotation_at(secret_path text) returns rotation language plpgsql as $$
declare
  r rotation%rowtype;
begin
  perform from secret where namespace_id = 1 and path = secret_path for update;
  select * into r from rotation where namespace_id = 1 and path = secret_path for update;
  return r;
end $$;

-- args: uid, secret_uid, rotator, target, document, edition (that the caller has read; 0: none), etag, planned (whether planned_at and window_ends_at are to be set), planned_at, window_ends_at, max_reads, on_finding,
-- follows_current, from_nothing, restarts (the rotator's configuration changed: a candidate made with the old one is given up), rotate_now. Never touches the secret's value (lesson 30).
create function rotation_put(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  s secret%rowtype;
  r rotation%rowtype;
  etag text := coalesce(a->>'etag', '');
begin
  select * into s from secret where namespace_id = 1 and path = c->>'path' for update;
  if not found then
    if not (a->>'from_nothing')::boolean then return refuse('SECRET_NOT_FOUND'); end if;
    insert into secret (uid, namespace_id, path, latest_version, current_version, created_at, updated_at)
      values ((a->>'secret_uid')::uuid, 1, c->>'path', 0, 0, t, t) returning * into s;
  elsif s.deleted_at is not null then
    return refuse('SECRET_DELETED');
  elsif s.current_version = 0 and not (a->>'from_nothing')::boolean then
    return refuse('SECRET_NOT_FOUND');
  end if;
  select * into r from rotation where secret_uid = s.uid for update;
  if r.uid is null then
    if etag <> '' then return refuse('VERSION_MISMATCH', '{"actual":"absent"}'); end if;
    if (a->>'edition')::bigint <> 0 then return refuse('STALE'); end if;
    insert into rotation (uid, namespace_id, path, secret_uid, rotator, target, document, state, settled_at, due_at, planned_at, window_ends_at, max_reads, on_finding, follows_current, created_at, updated_at, updated_by)
      values ((a->>'uid')::uuid, 1, c->>'path', s.uid, a->>'rotator', a->>'target', (a->>'document')::json, 'WAITING', t, t, (a->>'planned_at')::timestamptz, (a->>'window_ends_at')::timestamptz,
        (a->>'max_reads')::bigint, (a->>'on_finding')::boolean, (a->>'follows_current')::boolean, t, t, c->'actor'->>'principal') returning * into r;
  else
    if etag not in ('', '*', r.edition::text) then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', r.edition::text)); end if;
    if (a->>'edition')::bigint <> r.edition then return refuse('STALE'); end if;
    if (a->>'restarts')::boolean and r.state = 'RUNNING' and r.step <> 'CREATE' then return refuse('ROTATION_IN_PROGRESS', jsonb_build_object('step', r.step)); end if;
    update rotation set rotator = a->>'rotator', target = a->>'target', document = (a->>'document')::json, edition = edition + 1,
        planned_at = case when (a->>'planned')::boolean then (a->>'planned_at')::timestamptz else planned_at end,
        window_ends_at = case when (a->>'planned')::boolean then (a->>'window_ends_at')::timestamptz else window_ends_at end,
        max_reads = (a->>'max_reads')::bigint, on_finding = (a->>'on_finding')::boolean, follows_current = (a->>'follows_current')::boolean,
        due_at = case when state = 'WAITING' then t else due_at end, updated_at = t, updated_by = c->'actor'->>'principal'
      where uid = r.uid returning * into r;
  end if;
  if (a->>'rotate_now')::boolean and r.state <> 'RUNNING' then
    perform rotation_start(r, s, 'requested', t, t, c->'actor'->>'traceId');
    select * into r from rotation where uid = r.uid;
  end if;
  return done(jsonb_build_object('uid', r.uid, 'edition', r.edition), jsonb_build_object('type', 57, 'expire_at', iso(r.planned_at)));
end $$;

-- A candidate begins: the row first, so that its generation is known whatever happens.
create function rotation_start(r rotation, s secret, why text, t timestamptz, due timestamptz, trace text) returns void language sql as $$
  update rotation set state = 'RUNNING', step = 'CREATE', step_at = t, turn = turn + 1, generation = generation + 1, base_version = s.current_version, pending_version = 0, attempts = 0, failures = 0,
      problem = '', stuck_since = null, cause = why, held_until = null, due_at = due, finding_at = null, trace_id = trace
    where uid = r.uid
$$;

create function rotation_request(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  r rotation := rotation_at(c->>'path');
  s secret%rowtype;
begin
  if r.uid is null then return refuse('ROTATION_NOT_FOUND'); end if;
  if r.state = 'RUNNING' then return refuse('ROTATION_IN_PROGRESS', jsonb_build_object('step', r.step)); end if;
  select * into s from secret where uid = r.secret_uid;
  if s.deleted_at is not null then return refuse('SECRET_DELETED'); end if;
  perform rotation_start(r, s, 'requested', t, t, c->'actor'->>'traceId');
  return done(jsonb_build_object('uid', r.uid), '{"type":50}');
end $$;

-- The label of a candidate goes; the version stays, and is one of those that the outside may have heard of.
create function rotation_drop_candidate(r rotation, t timestamptz) returns void language plpgsql as $$
begin
  if r.step not in ('SET', 'TEST') then return; end if;
  update secret set pending_version = 0, generation = generation + 1, updated_at = t where uid = r.secret_uid;
  update rotation set given_up = (r.pending_version || given_up)[1:20], pending_version = 0 where uid = r.uid;
end $$;

-- args: restorable: CURRENT can be set again on the outside, and must be if a candidate may have been set there. RUNNING → ABORTED, or → RESTORE, which ends there.
create function rotation_abort(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  r rotation := rotation_at(c->>'path');
  restore boolean;
begin
  if r.uid is null then return refuse('ROTATION_NOT_FOUND'); end if;
  if r.state = 'ABORTED' or r.step = 'RESTORE' then return done(jsonb_build_object('uid', r.uid)); end if;
  restore := (c->'args'->>'restorable')::boolean and (r.step in ('SET', 'TEST') or (r.step = 'CREATE' and cardinality(r.given_up) > 0));
  perform rotation_drop_candidate(r, t);
  update rotation set state = case when restore then 'RUNNING' else 'ABORTED' end, step = case when restore then 'RESTORE' end, turn = turn + 1, generation = generation + 1, attempts = 0, failures = 0,
      problem = '', step_at = t, stuck_since = null, held_until = null, planned_at = null, window_ends_at = null,
      -- What a worker may still be doing is over first: it would overtake us.
      due_at = case when restore then greatest(t, r.settled_at) end
    where uid = r.uid;
  perform rotation_unstuck(r, 'aborted', t);
  return done(jsonb_build_object('uid', r.uid, 'given_up', case when r.step in ('SET', 'TEST') then r.pending_version end),
    jsonb_build_object('type', 56, 'version', r.pending_version));
end $$;

-- args: planned_at, window_ends_at. ABORTED → WAITING. What is under way is tried at once, unless a worker has it in its hands.
create function rotation_resume(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_at(c->>'path');
begin
  if r.uid is null then return refuse('ROTATION_NOT_FOUND'); end if;
  if r.state = 'RUNNING' then
    update rotation set due_at = least(due_at, greatest(t, held_until, case when step in ('FINISH', 'RESTORE') then settled_at end)) where uid = r.uid;
    return done(jsonb_build_object('uid', r.uid));
  end if;
  if r.state = 'WAITING' then return done(jsonb_build_object('uid', r.uid)); end if;
  update rotation set state = 'WAITING', turn = turn + 1, planned_at = (a->>'planned_at')::timestamptz, window_ends_at = (a->>'window_ends_at')::timestamptz, due_at = t where uid = r.uid;
  return done(jsonb_build_object('uid', r.uid), jsonb_build_object('type', 57, 'expire_at', a->>'planned_at'));
end $$;

-- args: etag. A secret that never had a value goes with it.
create function rotation_delete(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  r rotation := rotation_at(c->>'path');
  etag text := coalesce(c->'args'->>'etag', '');
begin
  if r.uid is null then return refuse('ROTATION_NOT_FOUND'); end if;
  if etag not in ('', '*', r.edition::text) then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', r.edition::text)); end if;
  if r.state = 'RUNNING' and r.step <> 'CREATE' then return refuse('ROTATION_IN_PROGRESS', jsonb_build_object('step', r.step)); end if;
  perform rotation_unstuck(r, 'rotation deleted', t);
  delete from rotation where uid = r.uid;
  delete from secret where uid = r.secret_uid and latest_version = 0;
  return done('{}', '{"type":57,"removed":true}');
end $$;

create function rotation_unstuck(r rotation, why text, t timestamptz) returns void language sql as $$
  update finding set state = 'RESOLVED', resolution = why, last_seen = t where target_uid = r.uid and kind = 'ROTATION_STUCK' and state = 'OPEN'
$$;

-- ------------------------------------------------------------------------------------------------------------ what workers do, each by its turn

-- Locks; null unless the turn is still the worker's.
create function rotation_turn(c jsonb) returns rotation language plpgsql as $$
declare
  r rotation := rotation_at(c->>'path');
begin
  if r.uid is distinct from (c->'args'->>'uid')::uuid or r.turn <> (c->'args'->>'turn')::bigint then return null; end if;
  return r;
end $$;

-- args: uid, turn, due_at, planned_at, window_ends_at. Nothing begins now. An event only when the plan changed.
create function rotation_plan(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
begin
  if r.uid is null or r.state <> 'WAITING' then return refuse('STALE'); end if;
  update rotation set turn = turn + 1, held_until = null, due_at = (a->>'due_at')::timestamptz, planned_at = (a->>'planned_at')::timestamptz, window_ends_at = (a->>'window_ends_at')::timestamptz where uid = r.uid;
  return done('{}', case when (a->>'planned_at')::timestamptz is distinct from r.planned_at then jsonb_build_object('type', 57, 'expire_at', a->>'planned_at') end);
end $$;

-- args: uid, turn, cause, claim_ms. WAITING → CREATE.
create function rotation_begin(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
  s secret%rowtype;
begin
  if r.uid is null or r.state <> 'WAITING' then return refuse('STALE'); end if;
  select * into s from secret where uid = r.secret_uid;
  perform rotation_start(r, s, a->>'cause', t, t, c->'actor'->>'traceId');
  return done(rotation_hold(r.uid, (a->>'claim_ms')::bigint, t), '{"type":50}');
end $$;

-- Whoever has moved it on holds it for the next step.
create function rotation_hold(rotation_uid uuid, claim_ms bigint, t timestamptz) returns jsonb language sql as $$
  update rotation set held_until = t + claim_ms * interval '1 ms', due_at = t + claim_ms * interval '1 ms',
      settled_at = greatest(settled_at, t + claim_ms * interval '1 ms'), attempts = attempts + 1
    where uid = rotation_uid returning jsonb_build_object('turn', turn, 'generation', generation)
$$;

-- args: uid, turn, claim_ms. FINISH: CURRENT is about to be set once more; RESTORE: what was CURRENT all along.
create function rotation_keep(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
begin
  if r.uid is null or r.state <> 'RUNNING' then return refuse('STALE'); end if;
  update rotation set turn = turn + 1 where uid = r.uid;
  return done(rotation_hold(r.uid, (a->>'claim_ms')::bigint, t));
end $$;

-- args: uid, turn, secret_uid, version, sealed, key_id, expire_at, claim_ms. CREATE → SET: the candidate is PENDING, sealed, before the outside hears of it (lesson 25).
create function rotation_stage(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
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
  update rotation set step = 'SET', step_at = t, turn = turn + 1, pending_version = v, attempts = 0, problem = '', stuck_since = null where uid = r.uid;
  perform rotation_unstuck(r, 'went on', t);
  return done(rotation_hold(r.uid, (a->>'claim_ms')::bigint, t), jsonb_build_object('type', 51, 'version', v), v);
end $$;

-- args: uid, turn, claim_ms. SET → TEST: the outside was told, or was found to know.
create function rotation_was_set(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
begin
  if r.uid is null or r.state <> 'RUNNING' or r.step <> 'SET' then return refuse('STALE'); end if;
  update rotation set step = 'TEST', step_at = t, turn = turn + 1, attempts = 0, problem = '', stuck_since = null where uid = r.uid;
  perform rotation_unstuck(r, 'went on', t);
  return done(rotation_hold(r.uid, (a->>'claim_ms')::bigint, t), jsonb_build_object('type', 52, 'version', r.pending_version), r.pending_version);
end $$;

-- args: uid, turn, planned_at, window_ends_at, waits. TEST → FINISH: CURRENT moves to the candidate, PREVIOUS to what was CURRENT. With `waits` the rest is done when nothing begun before can take effect any more.
create function rotation_promote(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
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
  update rotation set step = 'FINISH', step_at = t, turn = turn + 1, attempts = 0, failures = 0, problem = '', stuck_since = null, last_at = t, held_until = null, reads = 0, reads_version = r.pending_version,
      planned_at = (a->>'planned_at')::timestamptz, window_ends_at = (a->>'window_ends_at')::timestamptz, due_at = case when (a->>'waits')::boolean then greatest(t, settled_at) else t end
    where uid = r.uid;
  perform rotation_unstuck(r, 'went on', t);
  return done('{}', jsonb_build_object('type', 55, 'version', r.pending_version, 'versions', jsonb_build_array(r.pending_version), 'expire_at', a->>'planned_at'), r.pending_version);
end $$;

-- args: uid, turn, due_at. FINISH → WAITING, or RESTORE → ABORTED.
create function rotation_finish(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
begin
  if r.uid is null or r.state <> 'RUNNING' or r.step not in ('FINISH', 'RESTORE') then return refuse('STALE'); end if;
  update rotation set state = case r.step when 'RESTORE' then 'ABORTED' else 'WAITING' end, step = null, step_at = null, turn = turn + 1, pending_version = 0, given_up = '{}', attempts = 0, failures = 0,
      problem = '', stuck_since = null, held_until = null, due_at = case when r.step = 'FINISH' then (a->>'due_at')::timestamptz end
    where uid = r.uid;
  perform rotation_unstuck(r, 'went on', t);
  return done('{}', case r.step when 'FINISH' then jsonb_build_object('type', 54, 'version', r.pending_version, 'expire_at', iso(r.planned_at)) end, nullif(r.pending_version, 0));
end $$;

-- args: uid, turn, problem, counts, stuck, next_ms. A try failed; it is tried again for ever. Being stuck is said once, as an event and a finding.
create function rotation_fail(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
  newly boolean;
begin
  if r.uid is null then return refuse('STALE'); end if;
  newly := (a->>'stuck')::boolean and r.stuck_since is null;
  update rotation set turn = turn + 1, problem = a->>'problem', failures = failures + (a->>'counts')::boolean::integer, held_until = null,
      due_at = t + (a->>'next_ms')::bigint * interval '1 ms', stuck_since = case when newly then coalesce(step_at, t) else stuck_since end
    where uid = r.uid;
  if newly then
    insert into finding (id, namespace_id, kind, target_uid, name, first_seen, last_seen) values (gen_random_uuid(), 1, 'ROTATION_STUCK', r.uid, r.path, t, t) on conflict do nothing;
  end if;
  return done(jsonb_build_object('newly', newly), case when newly then jsonb_build_object('type', 56, 'version', r.pending_version) end);
end $$;

-- args: uid, turn, next_ms. SET or TEST → CREATE of the next candidate; `failures` begin anew. Also where CURRENT was changed by hand: the candidate is no successor of it.
create function rotation_give_up(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  r rotation := rotation_turn(c);
begin
  if r.uid is null or r.state <> 'RUNNING' or r.step not in ('CREATE', 'SET', 'TEST') then return refuse('STALE'); end if;
  perform rotation_drop_candidate(r, t);
  update rotation set step = 'CREATE', step_at = coalesce(stuck_since, t), turn = turn + 1, generation = generation + 1, base_version = (select current_version from secret where uid = r.secret_uid), attempts = 0, failures = 0,
      held_until = null, due_at = t + (a->>'next_ms')::bigint * interval '1 ms'
    where uid = r.uid;
  return done('{}', jsonb_build_object('type', 56, 'version', r.pending_version), nullif(r.pending_version, 0));
end $$;

insert into change_kind (kind, handler) values
  ('rotation.put', 'rotation_put'), ('rotation.delete', 'rotation_delete'), ('rotation.request', 'rotation_request'), ('rotation.abort', 'rotation_abort'), ('rotation.resume', 'rotation_resume'),
  ('rotation.plan', 'rotation_plan'), ('rotation.begin', 'rotation_begin'), ('rotation.keep', 'rotation_keep'), ('rotation.stage', 'rotation_stage'), ('rotation.was_set', 'rotation_was_set'), ('rotation.promote', 'rotation_promote'),
  ('rotation.finish', 'rotation_finish'), ('rotation.fail', 'rotation_fail'), ('rotation.give_up', 'rotation_give_up');
