-- The ledger by the batch: moves of many leases in one statement each, the warm pool, quotas; and one statement that numbers, logs and audits a whole group commit.
-- (docs/benchmarks.md, ADR 11.)

alter table lease
  add column role_uid uuid,
  add column role_generation bigint,
  -- Made ahead for the warm pool: PENDING → READY (there, unable to log in) → PENDING (taken, no longer pooled) → ACTIVE.
  add column pooled boolean not null default false,
  drop constraint lease_state_check,
  add constraint lease_state_check check (state in ('PENDING', 'READY', 'ACTIVE', 'REVOKING', 'REVOKED', 'ROLLED_BACK')),
  drop constraint lease_end_cause_check,
  add constraint lease_end_cause_check check (end_cause in ('EXPIRED', 'REVOKED', 'UNDELIVERED', 'ISSUE_FAILED', 'POOL', 'FORGOTTEN', 'MISSING')),
  drop constraint lease_namespace_id_principal_request_id_key,
  -- Every insert would look both up: a role names its target, and target_delete refuses, under the same lock, while there are leases.
  drop constraint lease_namespace_id_fkey,
  drop constraint lease_target_uid_fkey,
  -- What indexes ask for, and nothing else does: a move that leaves these as they are touches no index (HOT). With `state` and `next_action_at` in indexes a move cost 50 µs, most of it theirs.
  add column live boolean not null generated always as (state in ('PENDING', 'READY', 'ACTIVE', 'REVOKING')) stored,
  add column shelf boolean not null generated always as (pooled and state in ('PENDING', 'READY')) stored;
alter table lease set (fillfactor = 75);
drop index lease_due;
drop index lease_live_by_target;
create unique index lease_request on lease (namespace_id, principal, request_id) where request_id is not null;
create index lease_shelf on lease (path, issued_at) where shelf;
-- Quotas count here: see leases_create.
create index lease_live_by_role on lease (path, principal) where live and not shelf;
create index lease_live_by_target on lease (target_uid, id) where live;
-- What is pruned.
create index lease_ended on lease (ended_at) where not live;

-- When each lease is due: the schedule's truth. `lease.next_action_at` is what the last move planned; a claim moves only this. Null: nothing is due any more.
create table lease_due (
  lease_id uuid primary key,
  target_uid uuid not null,
  at timestamptz
) with (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05);
create index lease_due_at on lease_due (at, lease_id) include (target_uid) where at is not null;
insert into lease_due select id, target_uid, next_action_at from lease;

create function lease_scheduled() returns trigger language plpgsql as $$
begin
  case tg_op
    when 'INSERT' then insert into lease_due (lease_id, target_uid, at) select id, target_uid, next_action_at from moved;
    when 'UPDATE' then update lease_due d set at = m.next_action_at from moved m where d.lease_id = m.id;
    when 'DELETE' then delete from lease_due d using moved m where d.lease_id = m.id;
  end case;
  return null;
end $$;
create trigger lease_inserted after insert on lease referencing new table as moved for each statement execute function lease_scheduled();
create trigger lease_updated after update on lease referencing new table as moved for each statement execute function lease_scheduled();
create trigger lease_deleted after delete on lease referencing old table as moved for each statement execute function lease_scheduled();

-- Stable, as what they call is: called immutable they were not inlined, at 15 µs a call.
create or replace function refuse(reason text, metadata jsonb default '{}') returns jsonb language sql stable
as $$ select jsonb_build_object('ok', false, 'reason', reason, 'metadata', metadata) $$;
create or replace function done(result jsonb, event jsonb default null, version bigint default null) returns jsonb language sql stable
as $$ select jsonb_build_object('ok', true, 'result', result, 'event', event, 'version', version) $$;
create or replace function iso(t timestamptz) returns text language sql stable
as $$ select to_char(t at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;

-- Kinds of later migrations: `handler` is a function (c jsonb, t timestamptz) returns jsonb, which answers done() or refuse().
create table change_kind (
  kind text primary key,
  handler regproc not null
);

-- ------------------------------------------------------------------------------------------------------------ moves by the batch
-- Each takes commands of one kind, on different leases, and answers an outcome for each, in their order. Conditions stand in the UPDATE itself: a row that the schedule's claim moved meanwhile is looked at anew.

-- args: id, the role's data, sealed, ttl_ms, renew_ms, max_ttl_ms, rollback_ms, request; `pool`: take a READY login of this role if there is one; `max_live`, `max_live_per_principal`: quotas.
-- `deadline_at` becomes the instant from which on no creation can happen any more: the deadline that the target checks itself lies a statement timeout before it.
-- Quotas are counted, not kept: the lock of commit_changes() lets nobody else in between, and a count can't drift. Twins of one request_id do not come in one batch (group-committer.ts).
create function leases_create(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (
    select i, c->>'path' as path, c->'actor'->>'principal' as principal, coalesce(c->'actor'->>'traceId', '') as trace_id, a.*
      from unnest(cs) with ordinality u (c, i),
        jsonb_to_record(c->'args') a (id uuid, role_uid uuid, role_generation bigint, target_uid uuid, username text, system_identifier text, owned_objects jsonb, sealed text,
          key_id integer, default_ttl_ms bigint, ttl_ms bigint, renew_ms bigint, max_ttl_ms bigint, rollback_ms bigint, request_id uuid, request_hash text, pool boolean,
          max_live bigint, max_live_per_principal bigint)),
  judged as materialized (
    select a.i, case
        when l.id is not null then case when l.request_hash = a.request_hash then refuse('REPLAY', jsonb_build_object('lease', l.id)) else refuse('CONFLICT') end
        when r.uid is null then refuse('STALE')
        when a.max_live is not null and (select count(*) from lease x where x.path = a.path and x.live and not x.shelf)
            + row_number() over (partition by a.path order by a.i) > a.max_live
          then refuse('LEASE_QUOTA', jsonb_build_object('quota', 'max_leases', 'limit', a.max_live::text))
        when a.max_live_per_principal is not null
            and (select count(*) from lease x where x.path = a.path and x.principal = a.principal and x.live and not x.shelf)
              + row_number() over (partition by a.path, a.principal order by a.i) > a.max_live_per_principal
          then refuse('LEASE_QUOTA', jsonb_build_object('quota', 'max_leases_per_principal', 'limit', a.max_live_per_principal::text))
      end as refusal
      from asked a
        -- (lateral with a limit: looked up one by one; a join's plan, made when the table was empty, read it whole)
        left join lateral (select x.id, x.request_hash from lease x where x.request_id is not null and x.namespace_id = 1 and x.principal = a.principal and x.request_id = a.request_id limit 1) l on true
        left join lateral (select x.uid from role x where x.namespace_id = 1 and x.path = a.path and x.uid = a.role_uid and x.generation = a.role_generation limit 1) r on true),
  wanting as materialized (
    select a.*, row_number() over (partition by a.path order by a.i) as place from asked a join judged j using (i) where j.refusal is null and a.pool),
  ready as materialized (
    select w.path, found.id, row_number() over (partition by w.path order by found.issued_at) as place
      from (select path, role_uid, role_generation, count(*) as n from wanting group by 1, 2, 3) w,
        lateral (select l.id, l.issued_at from lease l where l.shelf and l.state = 'READY' and l.path = w.path and l.role_uid = w.role_uid and l.role_generation = w.role_generation
            and l.expire_at > t order by l.issued_at limit w.n for update) found),
  taken as (
    update lease l set state = 'PENDING', generation = l.generation + 1, principal = w.principal, request_id = w.request_id, request_hash = w.request_hash, pooled = false,
        default_ttl_ms = w.default_ttl_ms, issued_at = t, expire_at = t + w.ttl_ms * interval '1 ms', renew_at = t + w.renew_ms * interval '1 ms',
        max_expire_at = t + w.max_ttl_ms * interval '1 ms', deadline_at = t + w.rollback_ms * interval '1 ms', next_action_at = t + w.rollback_ms * interval '1 ms', trace_id = w.trace_id
      from ready y join wanting w using (path, place) where l.id = y.id and l.state = 'READY'
      returning w.i, jsonb_build_object('id', l.id, 'generation', l.generation, 'username', l.username, 'oid', l.login_oid, 'system_identifier', l.system_identifier,
        'connection', l.connection, 'owned_objects', l.owned_objects, 'sealed', encode(l.sealed, 'base64')) as login),
  made as (
    insert into lease (id, namespace_id, path, target_uid, principal, request_id, request_hash, state, username, system_identifier, owned_objects, sealed, key_id, default_ttl_ms,
        issued_at, expire_at, renew_at, max_expire_at, deadline_at, next_action_at, trace_id, role_uid, role_generation)
      select id, 1, path, target_uid, principal, request_id, request_hash, 'PENDING', username, system_identifier, owned_objects, decode(sealed, 'base64'), key_id, default_ttl_ms,
        t, t + ttl_ms * interval '1 ms', t + renew_ms * interval '1 ms', t + max_ttl_ms * interval '1 ms', t + rollback_ms * interval '1 ms', t + rollback_ms * interval '1 ms',
        trace_id, role_uid, role_generation
        from asked join judged j using (i) where j.refusal is null and not exists (select from taken k where k.i = asked.i))
  select array_agg(coalesce(j.refusal, done(jsonb_build_object('issued_at', iso(t), 'taken', k.login))) order by j.i) into answers from judged j left join taken k using (i);
  return answers;
end $$;

-- For the warm pool: PENDING with nobody's name on it, unless the pool is full by now. args as above, with pool_size, and max_age_ms: what it lives as READY.
create function leases_stock(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (
    select i, c->>'path' as path, a.*
      from unnest(cs) with ordinality u (c, i),
        jsonb_to_record(c->'args') a (id uuid, role_uid uuid, role_generation bigint, target_uid uuid, username text, system_identifier text, owned_objects jsonb, sealed text,
          key_id integer, max_age_ms bigint, rollback_ms bigint, pool_size bigint)),
  judged as materialized (
    select a.*, case
        when r.uid is null then refuse('STALE')
        when (select count(*) from lease x where x.path = a.path and x.shelf and x.role_generation = a.role_generation)
          + row_number() over (partition by a.path order by a.i) > a.pool_size then refuse('CONFLICT')
      end as refusal
      from asked a left join lateral (select x.uid from role x where x.namespace_id = 1 and x.path = a.path and x.uid = a.role_uid and x.generation = a.role_generation limit 1) r on true),
  made as (
    insert into lease (id, namespace_id, path, target_uid, principal, state, username, system_identifier, owned_objects, sealed, key_id, default_ttl_ms,
        issued_at, expire_at, renew_at, max_expire_at, deadline_at, next_action_at, role_uid, role_generation, pooled)
      select id, 1, path, target_uid, '', 'PENDING', username, system_identifier, owned_objects, decode(sealed, 'base64'), key_id, max_age_ms,
        t, t + max_age_ms * interval '1 ms', t, t + max_age_ms * interval '1 ms', t + rollback_ms * interval '1 ms', t + rollback_ms * interval '1 ms', role_uid, role_generation, true
        from judged where refusal is null)
  select array_agg(coalesce(refusal, done('{}')) order by i) into answers from judged;
  return answers;
end $$;

-- PENDING → READY: the login is there and can't log in.
create function leases_shelve(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (
    select i, a.* from unnest(cs) with ordinality u (c, i), jsonb_to_record(c->'args') a (id uuid, generation bigint, oid text, system_identifier text, connection jsonb)),
  moved as (
    update lease l set state = 'READY', generation = l.generation + 1, login_oid = a.oid, system_identifier = a.system_identifier, connection = a.connection, next_action_at = l.expire_at
      from asked a where l.id = a.id and l.state = 'PENDING' and l.pooled and l.generation = a.generation returning a.i)
  select array_agg(case when m.i is null then refuse('STALE') else done('{}') end order by a.i) into answers from asked a left join moved m using (i);
  return answers;
end $$;

-- PENDING → ACTIVE. The event LEASE_ISSUED.
create function leases_activate(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (
    select i, a.* from unnest(cs) with ordinality u (c, i), jsonb_to_record(c->'args') a (id uuid, generation bigint, oid text, system_identifier text, connection jsonb)),
  moved as (
    update lease l set state = 'ACTIVE', generation = l.generation + 1, login_oid = a.oid, system_identifier = a.system_identifier, connection = a.connection, next_action_at = l.expire_at
      from asked a where l.id = a.id and l.state = 'PENDING' and not l.pooled and l.generation = a.generation returning a.i, l.id, l.principal, l.generation, l.expire_at)
  select array_agg(case when m.i is null then refuse('STALE')
      else done(jsonb_build_object('generation', m.generation), jsonb_build_object('type', 20, 'lease_id', m.id, 'principal', m.principal, 'expire_at', iso(m.expire_at))) end order by a.i) into answers
    from asked a left join moved m using (i);
  return answers;
end $$;

-- What revocation needs to know of a lease's login.
create function login_of(l lease) returns jsonb language sql stable as $$
  select jsonb_build_object('state', l.state, 'generation', l.generation, 'target_uid', l.target_uid, 'username', l.username, 'oid', l.login_oid,
    'system_identifier', l.system_identifier, 'owned_objects', l.owned_objects)
$$;

-- ACTIVE: says where the renewal will end, before the target is touched (finding 17). The database's clock decides; a renewal never shortens a lease: that is what revoke is for.
-- One at a time: of two, the later on the target need not be the later here, and a VALID UNTIL could lie before the ledger's end.
create function leases_begin_renew(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (
    select i, a.* from unnest(cs) with ordinality u (c, i), jsonb_to_record(c->'args') a (id uuid, increment_ms bigint, redo_ms bigint)),
  found as materialized (
    select a.i, a.redo_ms, l.*, t + coalesce(a.increment_ms, l.default_ttl_ms) * interval '1 ms' as wanted from asked a join lease l on l.id = a.id for update of l),
  judged as materialized (
    select f.*, least(f.wanted, f.max_expire_at) as until, case
        when f.state <> 'ACTIVE' or f.expire_at <= t then refuse('LEASE_NOT_RENEWABLE', jsonb_build_object('state', f.state))
        -- Nobody has the password of one that was not delivered: it is on its way out.
        when not f.delivered then refuse('LEASE_NOT_RENEWABLE', jsonb_build_object('state', f.state, 'problem', 'undelivered'))
        when f.renewing_to is not null then refuse('REQUEST_IN_FLIGHT')
        when least(f.wanted, f.max_expire_at) <= f.expire_at then done(jsonb_build_object('unchanged', true, 'limited', f.max_expire_at < f.wanted))
      end as answer
      from found f),
  moved as (
    update lease l set renewing_to = j.until, generation = l.generation + 1, next_action_at = least(l.expire_at, t + j.redo_ms * interval '1 ms')
      from judged j where l.id = j.id and j.answer is null and l.state = 'ACTIVE' and l.generation = j.generation
      returning j.i, login_of(l) || jsonb_build_object('unchanged', false, 'limited', j.until < j.wanted, 'valid_for_ms', floor(extract(epoch from j.until - t) * 1000)) as answer)
  select array_agg(case when j.i is null then refuse('LEASE_NOT_FOUND') when j.answer is not null then j.answer when m.i is null then refuse('STALE') else done(m.answer) end order by a.i) into answers
    from asked a left join judged j using (i) left join moved m using (i);
  return answers;
end $$;

create function leases_finish_renew(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (
    select i, a.* from unnest(cs) with ordinality u (c, i), jsonb_to_record(c->'args') a (id uuid, generation bigint, renew_share double precision)),
  moved as (
    update lease l set expire_at = l.renewing_to, renew_at = t + (l.renewing_to - t) * a.renew_share, renewing_to = null, generation = l.generation + 1,
        attempts = 0, problem = null, next_action_at = l.renewing_to
      from asked a where l.id = a.id and l.state = 'ACTIVE' and l.renewing_to is not null and l.generation = a.generation
      returning a.i, l.id, l.principal, l.generation, l.expire_at, l.renew_at)
  select array_agg(case when m.i is null then refuse('STALE')
      else done(jsonb_build_object('generation', m.generation, 'expire_at', iso(m.expire_at), 'renew_at', iso(m.renew_at)),
        jsonb_build_object('type', 21, 'lease_id', m.id, 'principal', m.principal, 'expire_at', iso(m.expire_at))) end order by a.i) into answers
    from asked a left join moved m using (i);
  return answers;
end $$;

-- PENDING, READY or ACTIVE → REVOKING. (An ACTIVE lease that has expired is moved by whoever claims it: src/store/due-leases.ts.) Answers the login and whether it may still be under creation:
-- that one can't be revoked before its creation can no longer happen; the schedule does it then. A READY login goes by cause POOL alone, unless somebody has taken it meanwhile.
create function leases_begin_revoke(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (
    select i, a.* from unnest(cs) with ordinality u (c, i), jsonb_to_record(c->'args') a (id uuid, cause text, claim_ms bigint, generation bigint)),
  found as materialized (select a.i, a.cause, a.claim_ms, l.* from asked a join lease l on l.id = a.id for update of l),
  judged as materialized (
    select f.*, case
        when f.state in ('REVOKING', 'REVOKED', 'ROLLED_BACK') then 'ended'
        when f.cause = 'EXPIRED' and (f.state <> 'ACTIVE' or f.expire_at > t) then 'stale'
        when f.cause = 'UNDELIVERED' and (f.state <> 'ACTIVE' or f.delivered) then 'stale'
        when (f.cause = 'POOL') <> (f.state = 'READY') then 'stale'
        else 'move'
      end as verdict
      from found f),
  moved as (
    update lease l set state = 'REVOKING', generation = l.generation + 1, end_cause = j.cause, renewing_to = null, attempts = 0, problem = null,
        next_action_at = case when l.state = 'PENDING' and l.login_oid is null then greatest(l.deadline_at, t) else t + j.claim_ms * interval '1 ms' end
      from judged j where l.id = j.id and j.verdict = 'move' and l.generation = j.generation
      returning j.i, login_of(l) || jsonb_build_object('begun', true, 'creating', l.login_oid is null and t < l.deadline_at) as answer)
  select array_agg(case
      when j.i is null then refuse('LEASE_NOT_FOUND')
      when j.verdict = 'stale' then refuse('STALE')
      when j.verdict = 'ended' then done(jsonb_build_object('state', j.state, 'generation', j.generation, 'begun', false, 'target_uid', j.target_uid, 'username', j.username, 'oid', j.login_oid,
        'system_identifier', j.system_identifier, 'owned_objects', j.owned_objects, 'creating', j.state = 'REVOKING' and j.login_oid is null and t < j.deadline_at))
      when m.i is null then refuse('STALE')
      else done(m.answer) end order by a.i) into answers
    from asked a left join judged j using (i) left join moved m using (i);
  return answers;
end $$;

-- REVOKING → REVOKED: the login is gone, and none can come any more.
create function leases_finish_revoke(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (
    select i, a.* from unnest(cs) with ordinality u (c, i), jsonb_to_record(c->'args') a (id uuid, generation bigint, grace_ms bigint)),
  moved as (
    update lease l set state = 'REVOKED', generation = l.generation + 1, ended_at = t, sealed = null, key_id = null, problem = null, stalled = false,
        next_action_at = greatest(l.expire_at, t) + a.grace_ms * interval '1 ms'
      from asked a where l.id = a.id and l.state = 'REVOKING' and l.generation = a.generation and (l.login_oid is not null or t >= l.deadline_at)
      returning a.i, l.id, l.principal, l.generation, l.expire_at, l.end_cause)
  select array_agg(case when m.i is null then refuse('STALE')
      -- A login of the pool was never anybody's lease: no event.
      when m.end_cause = 'POOL' then done(jsonb_build_object('generation', m.generation))
      else done(jsonb_build_object('generation', m.generation), jsonb_build_object('type', case m.end_cause when 'EXPIRED' then 22 else 23 end, 'lease_id', m.id,
        'principal', m.principal, 'expire_at', iso(m.expire_at), 'removed', true)) end order by a.i) into answers
    from asked a left join moved m using (i);
  return answers;
end $$;

-- A try failed: it is tried again at next_ms from now, for ever, and what is ACTIVE at its expiry at the latest. `stalled` is said once, as an event.
create function leases_fail_action(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (
    select i, a.* from unnest(cs) with ordinality u (c, i), jsonb_to_record(c->'args') a (id uuid, generation bigint, problem text, stalled boolean, next_ms bigint)),
  found as materialized (
    select a.i, l.id, a.problem, a.next_ms, l.generation, a.stalled and not l.stalled and l.state = 'REVOKING' as newly
      from asked a join lease l on l.id = a.id and l.generation = a.generation for update of l),
  moved as (
    update lease l set attempts = l.attempts + 1, problem = f.problem, stalled = l.stalled or f.newly,
        next_action_at = least(t + f.next_ms * interval '1 ms', case when l.state = 'ACTIVE' and l.expire_at > t then l.expire_at end)
      from found f where l.id = f.id and l.generation = f.generation returning f.i, f.newly, l.id, l.principal, l.attempts, l.expire_at)
  select array_agg(case when m.i is null then refuse('STALE')
      else done(jsonb_build_object('attempts', m.attempts),
        case when m.newly then jsonb_build_object('type', 24, 'lease_id', m.id, 'principal', m.principal, 'expire_at', iso(m.expire_at)) end) end order by a.i) into answers
    from asked a left join moved m using (i);
  return answers;
end $$;

-- A terminal lease was probed for the last time: nothing is due any more.
create function leases_settle(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (select i, a.* from unnest(cs) with ordinality u (c, i), jsonb_to_record(c->'args') a (id uuid, generation bigint)),
  moved as (
    update lease l set next_action_at = null from asked a where l.id = a.id and l.state in ('REVOKED', 'ROLLED_BACK') and l.generation = a.generation returning a.i)
  select array_agg(case when m.i is null then refuse('STALE') else done('{}') end order by a.i) into answers from asked a left join moved m using (i);
  return answers;
end $$;

drop function lease_create(jsonb, timestamptz);
drop function lease_activate(jsonb, timestamptz);
drop function lease_begin_renew(jsonb, timestamptz);
drop function lease_finish_renew(jsonb, timestamptz);
drop function lease_begin_revoke(jsonb, timestamptz);
drop function lease_finish_revoke(jsonb, timestamptz);
drop function lease_fail_action(jsonb, timestamptz);
drop function lease_settle(jsonb, timestamptz);

-- ------------------------------------------------------------------------------------------------------------ the committer's call

-- Moves of one kind on many leases; null for a kind that is applied one by one.
create function apply_many(kind text, cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
begin
  case kind
    when 'lease.create' then return leases_create(cs, t);
    when 'lease.stock' then return leases_stock(cs, t);
    when 'lease.shelve' then return leases_shelve(cs, t);
    when 'lease.activate' then return leases_activate(cs, t);
    when 'lease.begin_renew' then return leases_begin_renew(cs, t);
    when 'lease.finish_renew' then return leases_finish_renew(cs, t);
    when 'lease.begin_revoke' then return leases_begin_revoke(cs, t);
    when 'lease.finish_revoke' then return leases_finish_revoke(cs, t);
    when 'lease.fail_action' then return leases_fail_action(cs, t);
    when 'lease.settle' then return leases_settle(cs, t);
    else return null;
  end case;
end $$;

create or replace function apply_change(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  found_handler regproc;
  answer jsonb;
begin
  case c->>'kind'
    when 'lease.roll_back' then return lease_roll_back(c, t);
    when 'lease.delivery' then return lease_delivery(c, t);
    when 'lease.reopen' then return lease_reopen(c, t);
    when 'secret.put' then return secret_put(c, t);
    when 'secret.update_metadata' then return secret_update_metadata(c, t);
    when 'secret.delete_versions', 'secret.undelete_versions', 'secret.destroy_versions' then return secret_versions(c, t);
    when 'secret.delete' then return secret_delete(c, t);
    when 'secret.restore' then return secret_restore(c, t);
    when 'secret.purge' then return secret_purge(c, t);
    when 'policy.put' then return policy_put(c, t);
    when 'policy.delete' then return policy_delete(c, t);
    when 'target.put' then return target_put(c, t);
    when 'target.delete' then return target_delete(c, t);
    when 'role.put' then return role_put(c, t);
    when 'role.delete' then return role_delete(c, t);
    when 'keyring.rotate' then return keyring_rotate(c, t);
    when 'operation.create' then return operation_create(c, t);
    when 'operation.finish' then return operation_finish(c, t);
    else
      select handler into found_handler from change_kind where kind = c->>'kind';
      if not found then raise exception 'unknown change %', c->>'kind'; end if;
      execute format('select %s($1, $2)', found_handler) into answer using c, t;
      return answer;
  end case;
end $$;

-- The text of one audit record: what the process wrote of it (src/store/group-committer.ts), and what only the database knows. (The whole text built here cost 10 µs a record.)
drop function audit_text(bigint, jsonb, text, bigint, bigint);
create function audit_text(seq bigint, version text, revision bigint, rest text) returns text language sql stable as $$
  select '{"seq":' || seq || coalesce(',"version":' || version, '') || coalesce(',"revision":' || revision, '') || ',' || substr(rest, 2)
$$;

-- As before (0003), with two things more in a command: `record` false writes no audit record, for the first half of an act whose second half is recorded.
-- Commands of one batch are all unanswered, hence concurrent: those that are applied one by one go first, in their order, then each kind of those applied by the batch.
-- p_commit counts the process's calls: a call that is done already fails as a duplicate, and its answer is in commit_result. p_batch, p_seq, p_head: the tail of its chain, which grows only by batches with records.
drop function commit_changes(text, bigint, bigint, bytea, jsonb);
create function commit_changes(p_chain text, p_commit bigint, p_batch bigint, p_seq bigint, p_head bytea, p_commands jsonb) returns json language plpgsql as $$
declare
  t timestamptz;
  commands jsonb[] := array(select value from jsonb_array_elements(p_commands));
  results jsonb[] := array_fill(null::jsonb, array[cardinality(commands)]);
  grouped record;
  outcomes jsonb[];
  rev bigint;
  first_rev bigint;
  v_head bytea;
  recorded bigint;
  answers json;
  answer json;
begin
  perform pg_advisory_xact_lock(7164101);
  if (select batch from commit_result where chain = p_chain) >= p_commit then
    raise exception using errcode = 'unique_violation', message = 'this batch was committed before';
  end if;
  t := leasehold_now();
  select coalesce(max(revision), 0) into first_rev from change_log;

  for grouped in
    select i, case when q.request_hash = c->'request'->>'hash' then q.result::jsonb || '{"replay":true}' else refuse('CONFLICT') end as known
      from unnest(commands) with ordinality u (c, i) join request q on c->'request'->>'id' is not null and q.namespace_id = 1 and q.principal = c->'actor'->>'principal'
        and q.action = c->'actor'->>'action' and q.request_id = (c->'request'->>'id')::uuid
  loop
    results[grouped.i] := grouped.known;
  end loop;

  for grouped in
    select c->>'kind' as kind, array_agg(c order by i) as cs, array_agg(i::integer order by i) as places
      from unnest(commands) with ordinality u (c, i) where results[i] is null group by 1 order by min(i)
  loop
    outcomes := apply_many(grouped.kind, grouped.cs, t);
    continue when outcomes is null;
    for j in 1 .. cardinality(outcomes) loop
      results[grouped.places[j]] := outcomes[j];
    end loop;
  end loop;
  for j in 1 .. cardinality(commands) loop
    if results[j] is null then results[j] := apply_change(commands[j], t); end if;
  end loop;

  with outcome as (
    select i, c, r, d.did, d.did and jsonb_typeof(r->'event') = 'object' as evented, d.did and coalesce((c->>'record')::boolean, true) as recorded
      from unnest(commands, results) with ordinality u (c, r, i), lateral (select (r->>'ok')::boolean and not r ? 'replay') d (did)),
  numbered as materialized (
    select *, first_rev + count(*) filter (where o.evented) over placed as revision, p_seq + count(*) filter (where o.recorded) over placed as seq from outcome o window placed as (order by i)),
  logged as (
    insert into change_log (revision, namespace_id, at, type, path, version, versions, lease_id, principal, expire_at, removed, decides_reads)
      select n.revision, 1, t, e.type, n.c->>'path', coalesce(e.version, 0), coalesce(e.versions, '{}'), e.lease_id, coalesce(e.principal, ''), e.expire_at, coalesce(e.removed, false),
        e.type not between 20 and 39
      from numbered n, jsonb_to_record(n.r->'event') e (type smallint, version bigint, versions bigint[], lease_id uuid, principal text, expire_at timestamptz, removed boolean) where n.evented),
  kept as (
    insert into request (namespace_id, principal, action, request_id, request_hash, result, created_at)
      select 1, c->'actor'->>'principal', c->'actor'->>'action', (c->'request'->>'id')::uuid, c->'request'->>'hash',
          json_build_object('ok', true, 'revision', revision, 'result', r->'result'), t from numbered where did and c->'request'->>'id' is not null),
  texts as materialized (
    select seq, audit_text(seq, r->>'version', case when evented then revision end, c->>'audit') as record from numbered n where n.recorded),
  chained as (select count(*) as n, sha256(p_head || convert_to('[' || coalesce(string_agg(record, ',' order by seq), '') || ']', 'UTF8')) as head from texts),
  batched as (insert into audit_batch (chain, batch, last_seq, head) select p_chain, p_batch, p_seq + n, head from chained where n > 0),
  written as (insert into audit_record (chain, seq, record) select p_chain, seq, record::json from texts)
  select n, head, (select max(revision) from numbered),
      (select json_agg(case when did then jsonb_build_object('ok', true, 'revision', revision, 'result', r->'result') else r end order by i) from numbered)
    into recorded, v_head, rev, answers from chained;
  if recorded = 0 then v_head := p_head; end if;

  answer := json_build_object('epoch', (select epoch from store_state), 'timeline', ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint,
    'revision', rev, 'changed', rev > first_rev, 'head', encode(v_head, 'hex'), 'last_seq', p_seq + recorded, 'results', answers);
  insert into commit_result (chain, batch, outcome) values (p_chain, p_commit, answer)
    on conflict (chain) do update set batch = excluded.batch, outcome = excluded.outcome;
  return answer;
end $$;

-- ------------------------------------------------------------------------------------------------------------ a target's connections, shared by all replicas

-- A connection to a target holds a slot of it (finding 28): never more of them than the target's limit, however many replicas there are. A slot that is not held on to ends by itself.
create table target_slot (
  target_uid uuid not null,
  slot integer not null,
  holder uuid not null,
  until timestamptz not null,
  primary key (target_uid, slot)
);
-- Somebody waits for a slot: who holds more than his share gives some back.
create table target_slot_wanted (
  target_uid uuid primary key,
  until timestamptz not null
);
