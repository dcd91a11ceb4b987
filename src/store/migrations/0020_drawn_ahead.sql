-- A replica draws some logins of a warm pool ahead, so that an issue's commit and its call of the target go side by side: a login that is drawn is PENDING, with a deadline, like one that is being made
-- (docs/adr/0023). Write-ahead as ever: that it may be enabled is committed before anybody enables it; what becomes of none of its calls is taken away when the deadline has passed.

-- What whoever takes or draws a login is told of it.
create function login_taken(l lease) returns jsonb language sql stable as $$
  select jsonb_build_object('id', l.id, 'generation', l.generation, 'username', l.username, 'oid', l.login_oid, 'system_identifier', l.system_identifier, 'connection', l.connection,
    'owned_objects', l.owned_objects, 'sealed', encode(l.sealed, 'base64'))
$$;

-- READY → PENDING, up to `count`; no event, nobody's lease. args: role_uid, role_generation, count, hold_ms (the target refuses to enable one later than that), rollback_ms (when nothing can happen to it any more),
-- max_ttl_ms: `expire_at` becomes the latest end that enabling may give it on the target (finding 17); the pool's own stays in `max_expire_at`.
create function lease_draw(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  drawn jsonb;
begin
  with picked as materialized (
    select id from lease where shelf and state = 'READY' and path = c->>'path' and role_uid = (a->>'role_uid')::uuid and role_generation = (a->>'role_generation')::bigint
        and expire_at > t + (a->>'hold_ms')::bigint * interval '1 ms'
      order by issued_at limit (a->>'count')::integer for update),
  moved as (
    update lease l set state = 'PENDING', generation = l.generation + 1, expire_at = greatest(l.expire_at, t + ((a->>'hold_ms')::bigint + (a->>'max_ttl_ms')::bigint) * interval '1 ms'), deadline_at = t + (a->>'rollback_ms')::bigint * interval '1 ms', next_action_at = t + (a->>'rollback_ms')::bigint * interval '1 ms'
      from picked p where l.id = p.id returning login_taken(l) as login)
  select coalesce(jsonb_agg(login), '[]') into drawn from moved;
  return done(jsonb_build_object('drawn', drawn));
end $$;

-- PENDING → READY: drawn, and never enabled. args: id, generation.
create function lease_put_back(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
begin
  update lease set state = 'READY', generation = generation + 1, expire_at = max_expire_at, next_action_at = max_expire_at
    where id = (c->'args'->>'id')::uuid and state = 'PENDING' and pooled and login_oid is not null and generation = (c->'args'->>'generation')::bigint and deadline_at > t;
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

insert into change_kind (kind, handler) values ('lease.draw', 'lease_draw'), ('lease.put_back', 'lease_put_back');

-- As in 0008; with `drawn` (id, generation) that login, if it is still his who drew it, and else any that is READY.
create or replace function lease_take(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  refusal jsonb := lease_refusal(c, a);
  free uuid;
  l lease%rowtype;
begin
  if refusal is not null then return refusal; end if;
  if a ? 'drawn' then
    select id into free from lease where id = (a->'drawn'->>'id')::uuid and generation = (a->'drawn'->>'generation')::bigint and state = 'PENDING' and pooled and login_oid is not null
      and path = c->>'path' and role_uid = (a->>'role_uid')::uuid and role_generation = (a->>'role_generation')::bigint and expire_at > t and deadline_at > t for update;
  end if;
  if free is null then
    select id into free from lease where shelf and state = 'READY' and path = c->>'path' and role_uid = (a->>'role_uid')::uuid and role_generation = (a->>'role_generation')::bigint and expire_at > t
      order by issued_at limit 1 for update;
  end if;
  if free is null then return done('{"taken":null}') || '{"unrecorded":true}'; end if;
  update lease set state = 'ACTIVE', generation = generation + 1, principal = c->'actor'->>'principal', request_id = (a->>'request_id')::uuid, request_hash = a->>'request_hash', pooled = false,
      default_ttl_ms = (a->>'default_ttl_ms')::bigint, issued_at = t, expire_at = t + (a->>'ttl_ms')::bigint * interval '1 ms', renew_at = t + (a->>'renew_ms')::bigint * interval '1 ms',
      max_expire_at = t + (a->>'max_ttl_ms')::bigint * interval '1 ms', enabling = true, next_action_at = t + least((a->>'ttl_ms')::bigint, (a->>'redo_ms')::bigint) * interval '1 ms',
      trace_id = coalesce(c->'actor'->>'traceId', '')
    where id = free returning * into l;
  return done(jsonb_build_object('issued_at', iso(t), 'taken', login_taken(l)),
    jsonb_build_object('type', 20, 'lease_id', l.id, 'principal', l.principal, 'expire_at', iso(l.expire_at))) || jsonb_build_object('fingerprint', l.fingerprint);
end $$;

-- As in 0003; a login of the pool was nobody's lease, so that its end is no event.
create or replace function lease_reopen(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  update lease set state = 'REVOKING', generation = generation + 1, end_cause = coalesce(end_cause, case when pooled then 'POOL' else 'ISSUE_FAILED' end), login_oid = a->>'oid', ended_at = null,
      attempts = 0, problem = null, next_action_at = t + (a->>'claim_ms')::bigint * interval '1 ms'
    where id = (a->>'id')::uuid and state in ('REVOKED', 'ROLLED_BACK', 'PENDING') and generation = (a->>'generation')::bigint;
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

-- As in 0004; the cause POOL ends one that was drawn, too.
create or replace function leases_begin_revoke(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
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
        when f.cause <> 'POOL' and f.state = 'READY' then 'stale'
        when f.cause = 'POOL' and not (f.state = 'READY' or f.state = 'PENDING' and f.pooled and f.login_oid is not null) then 'stale'
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
