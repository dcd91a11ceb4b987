-- The moves of a lease, each a compare-and-set on its generation: STALE says that another worker moved it first.
-- `next_action_at` after each move: PENDING → when it may be rolled back; ACTIVE → expiry; REVOKING → the next try;
-- REVOKED, ROLLED_BACK → the last probe of the target, after the login's own VALID UNTIL and grace (finding 8), then null.

-- args: id, the role's data, sealed, ttl_ms, renew_ms, max_ttl_ms, rollback_ms, request. `deadline_at` becomes the instant from which on no creation can happen any more: the deadline that
-- the target checks itself lies a statement timeout before it.
create function lease_create(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  l lease%rowtype;
begin
  if a ? 'request_id' then
    select * into l from lease where namespace_id = 1 and principal = c->'actor'->>'principal' and request_id = (a->>'request_id')::uuid;
    if found then
      if l.request_hash <> a->>'request_hash' then return refuse('CONFLICT'); end if;
      return refuse('REPLAY', jsonb_build_object('lease', l.id));
    end if;
  end if;
  if not exists (select from role where namespace_id = 1 and path = c->>'path' and uid = (a->>'role_uid')::uuid and generation = (a->>'role_generation')::bigint) then
    return refuse('STALE');
  end if;
  insert into lease (id, namespace_id, path, target_uid, principal, request_id, request_hash, state, username, system_identifier, owned_objects, sealed, key_id, default_ttl_ms,
      issued_at, expire_at, renew_at, max_expire_at, deadline_at, next_action_at, trace_id)
    values ((a->>'id')::uuid, 1, c->>'path', (a->>'target_uid')::uuid, c->'actor'->>'principal', (a->>'request_id')::uuid, a->>'request_hash', 'PENDING', a->>'username',
      a->>'system_identifier', a->'owned_objects', decode(a->>'sealed', 'base64'), (a->>'key_id')::integer, (a->>'default_ttl_ms')::bigint,
      t, t + (a->>'ttl_ms')::bigint * interval '1 ms', t + (a->>'renew_ms')::bigint * interval '1 ms', t + (a->>'max_ttl_ms')::bigint * interval '1 ms',
      t + (a->>'rollback_ms')::bigint * interval '1 ms', t + (a->>'rollback_ms')::bigint * interval '1 ms', c->'actor'->>'traceId');
  return done(jsonb_build_object('issued_at', iso(t)));
end $$;

-- PENDING → ACTIVE. The event LEASE_ISSUED.
create function lease_activate(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  l lease%rowtype;
begin
  update lease set state = 'ACTIVE', generation = generation + 1, login_oid = a->>'oid', system_identifier = a->>'system_identifier',
      connection = a->'connection', next_action_at = expire_at
    where id = (a->>'id')::uuid and state = 'PENDING' and generation = (a->>'generation')::bigint returning * into l;
  if not found then return refuse('STALE'); end if;
  return done(jsonb_build_object('generation', l.generation),
    jsonb_build_object('type', 20, 'lease_id', l.id, 'principal', l.principal, 'expire_at', iso(l.expire_at)));
end $$;

-- PENDING → ROLLED_BACK, once the target has no such login and none can come any more: the deadline has passed, or (`refused`) whoever would create it was refused for good.
create function lease_roll_back(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  update lease set state = 'ROLLED_BACK', generation = generation + 1, end_cause = 'ISSUE_FAILED', ended_at = t, sealed = null, key_id = null,
      attempts = 0, problem = null, next_action_at = expire_at + (a->>'grace_ms')::bigint * interval '1 ms'
    where id = (a->>'id')::uuid and state = 'PENDING' and generation = (a->>'generation')::bigint and (t >= deadline_at or coalesce((a->>'refused')::boolean, false));
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

-- ACTIVE: says where the renewal will end, before the target is touched (finding 17). The database's clock decides.
create function lease_begin_renew(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  l lease%rowtype;
  wanted timestamptz;
  until timestamptz;
begin
  select * into l from lease where id = (a->>'id')::uuid for update;
  if not found then return refuse('LEASE_NOT_FOUND'); end if;
  if l.state <> 'ACTIVE' or l.expire_at <= t then return refuse('LEASE_NOT_RENEWABLE', jsonb_build_object('state', l.state)); end if;
  -- Nobody has the password of one that was not delivered: it is on its way out.
  if not l.delivered then return refuse('LEASE_NOT_RENEWABLE', jsonb_build_object('state', l.state, 'problem', 'undelivered')); end if;
  -- One at a time: of two, the later on the target need not be the later here, and a VALID UNTIL could lie before the ledger's end.
  if l.renewing_to is not null then return refuse('REQUEST_IN_FLIGHT'); end if;
  if l.generation <> (a->>'generation')::bigint then return refuse('STALE'); end if;
  wanted := t + coalesce((a->>'increment_ms')::bigint, l.default_ttl_ms) * interval '1 ms';
  until := least(wanted, l.max_expire_at);
  -- A renewal never shortens a lease: that is what revoke is for.
  if until <= l.expire_at then
    return done(jsonb_build_object('expire_at', iso(l.expire_at), 'unchanged', true, 'generation', l.generation, 'limited', l.max_expire_at < wanted));
  end if;
  update lease set renewing_to = until, generation = generation + 1, next_action_at = least(l.expire_at, t + (a->>'redo_ms')::bigint * interval '1 ms')
    where id = l.id;
  return done(jsonb_build_object('expire_at', iso(until), 'unchanged', false, 'generation', l.generation + 1, 'limited', until < wanted,
    'valid_for_ms', floor(extract(epoch from until - t) * 1000)));
end $$;

create function lease_finish_renew(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  l lease%rowtype;
begin
  update lease set expire_at = renewing_to, renew_at = t + (renewing_to - t) * (a->>'renew_share')::double precision, renewing_to = null, generation = generation + 1,
      attempts = 0, problem = null, next_action_at = renewing_to
    where id = (a->>'id')::uuid and state = 'ACTIVE' and renewing_to is not null and generation = (a->>'generation')::bigint returning * into l;
  if not found then return refuse('STALE'); end if;
  return done(jsonb_build_object('generation', l.generation),
    jsonb_build_object('type', 21, 'lease_id', l.id, 'principal', l.principal, 'expire_at', iso(l.expire_at)));
end $$;

-- ACTIVE or PENDING → REVOKING. With cause EXPIRED only when the database's clock agrees that it is due.
create function lease_begin_revoke(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  l lease%rowtype;
begin
  select * into l from lease where id = (a->>'id')::uuid for update;
  if not found then return refuse('LEASE_NOT_FOUND'); end if;
  if l.state in ('REVOKING', 'REVOKED', 'ROLLED_BACK') then
    return done(jsonb_build_object('state', l.state, 'creating', l.state = 'REVOKING' and l.login_oid is null and t < l.deadline_at));
  end if;
  if a->>'cause' = 'EXPIRED' and (l.state <> 'ACTIVE' or l.expire_at > t) then return refuse('STALE'); end if;
  if a->>'cause' = 'UNDELIVERED' and (l.state <> 'ACTIVE' or l.delivered) then return refuse('STALE'); end if;
  -- A login that is still being created can't be revoked before the creation can no longer happen: the schedule does it then.
  update lease set state = 'REVOKING', generation = generation + 1, end_cause = a->>'cause', renewing_to = null, attempts = 0, problem = null,
      next_action_at = case when l.state = 'PENDING' then greatest(l.deadline_at, t) else t + (a->>'claim_ms')::bigint * interval '1 ms' end
    where id = l.id returning * into l;
  return done(jsonb_build_object('state', l.state, 'creating', l.login_oid is null and t < l.deadline_at));
end $$;

-- REVOKING → REVOKED: the login is gone, and none can come any more.
create function lease_finish_revoke(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  l lease%rowtype;
begin
  update lease set state = 'REVOKED', generation = generation + 1, ended_at = t, sealed = null, key_id = null, problem = null, stalled = false,
      next_action_at = greatest(expire_at, t) + (a->>'grace_ms')::bigint * interval '1 ms'
    where id = (a->>'id')::uuid and state = 'REVOKING' and generation = (a->>'generation')::bigint and (login_oid is not null or t >= deadline_at) returning * into l;
  if not found then return refuse('STALE'); end if;
  return done(jsonb_build_object('generation', l.generation),
    jsonb_build_object('type', case l.end_cause when 'EXPIRED' then 22 else 23 end, 'lease_id', l.id, 'principal', l.principal, 'expire_at', iso(l.expire_at), 'removed', true));
end $$;

-- A try failed: it is tried again at next_ms from now, for ever, and what is ACTIVE at its expiry at the latest. `stalled` is said once, as an event.
create function lease_fail_action(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  l lease%rowtype;
  newly boolean;
begin
  select * into l from lease where id = (a->>'id')::uuid and generation = (a->>'generation')::bigint for update;
  if not found then return refuse('STALE'); end if;
  newly := (a->>'stalled')::boolean and not l.stalled and l.state = 'REVOKING';
  update lease set attempts = attempts + 1, problem = a->>'problem', stalled = stalled or newly,
      next_action_at = least(t + (a->>'next_ms')::bigint * interval '1 ms', case when l.state = 'ACTIVE' and l.expire_at > t then l.expire_at end)
    where id = l.id;
  return done(jsonb_build_object('attempts', l.attempts + 1),
    case when newly then jsonb_build_object('type', 24, 'lease_id', l.id, 'principal', l.principal, 'expire_at', iso(l.expire_at)) end);
end $$;

-- `delivered` false: the caller was gone before the answer reached HTTP/2: revoked after wait_ms unless it asks again (finding 9). `generation` is that of the answer: whoever was answered later has the
-- password, and then it stays. `delivered` true: it is being answered again.
create function lease_delivery(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  l lease%rowtype;
begin
  if (a->>'delivered')::boolean then
    -- A renewal under way holds the generation, and has moved it already.
    update lease set delivered = true, generation = generation + (renewing_to is null)::integer, next_action_at = case when renewing_to is null then expire_at else next_action_at end
      where id = (a->>'id')::uuid and state = 'ACTIVE' and expire_at > t returning * into l;
  else
    update lease set delivered = false, generation = generation + 1, next_action_at = least(expire_at, t + (a->>'wait_ms')::bigint * interval '1 ms')
      where id = (a->>'id')::uuid and state = 'ACTIVE' and renewing_to is null and generation = (a->>'generation')::bigint returning * into l;
  end if;
  if not found then return refuse('STALE'); end if;
  return done(jsonb_build_object('generation', l.generation));
end $$;

-- A terminal lease was probed for the last time: nothing is due any more.
create function lease_settle(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
begin
  update lease set next_action_at = null where id = (c->'args'->>'id')::uuid and state in ('REVOKED', 'ROLLED_BACK') and generation = (c->'args'->>'generation')::bigint;
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

-- A login was found under a terminal row, or under one whose creation never ended: REVOKING, so that it goes the safe way.
create function lease_reopen(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  update lease set state = 'REVOKING', generation = generation + 1, end_cause = coalesce(end_cause, 'ISSUE_FAILED'), login_oid = a->>'oid', ended_at = null,
      attempts = 0, problem = null, next_action_at = t + (a->>'claim_ms')::bigint * interval '1 ms'
    where id = (a->>'id')::uuid and state in ('REVOKED', 'ROLLED_BACK', 'PENDING') and generation = (a->>'generation')::bigint;
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

-- ------------------------------------------------------------------------------------------------------------ the committer's call

create function apply_change(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
begin
  case c->>'kind'
    when 'lease.create' then return lease_create(c, t);
    when 'lease.activate' then return lease_activate(c, t);
    when 'lease.begin_revoke' then return lease_begin_revoke(c, t);
    when 'lease.finish_revoke' then return lease_finish_revoke(c, t);
    when 'lease.begin_renew' then return lease_begin_renew(c, t);
    when 'lease.finish_renew' then return lease_finish_renew(c, t);
    when 'lease.fail_action' then return lease_fail_action(c, t);
    when 'lease.roll_back' then return lease_roll_back(c, t);
    when 'lease.delivery' then return lease_delivery(c, t);
    when 'lease.settle' then return lease_settle(c, t);
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
    else raise exception 'unknown change %', c->>'kind';
  end case;
end $$;

-- The text of one audit record; the same fields in the same order as src/audit/record.ts writes for reads.
create function audit_text(seq bigint, c jsonb, outcome text, version bigint, revision bigint) returns text language sql stable as $$
  select json_strip_nulls(json_build_object('seq', seq, 'at', c->'at', 'request_id', c->'actor'->'requestId', 'trace_id', c->'actor'->'traceId',
    'principal', c->'actor'->'principal', 'action', c->'actor'->'action', 'capability', c->'actor'->'capability', 'path', c->'path', 'outcome', outcome,
    'version', version, 'revision', revision, 'lease', c->'lease', 'peer', c->'actor'->'peer', 'cause', c->'actor'->'cause'))::text
$$;

-- p_batch, p_seq, p_head: the process's idea of the tail of its own chain. A batch that is already there fails on its primary key.
-- Answers {epoch, revision, head, last_seq, results: [{ok, revision, result, replay} | {ok: false, reason, metadata}]}.
create function commit_changes(p_chain text, p_batch bigint, p_seq bigint, p_head bytea, p_commands jsonb) returns json language plpgsql as $$
declare
  t timestamptz;
  c jsonb;
  r jsonb;
  known request%rowtype;
  rev bigint;
  first_rev bigint;
  seq bigint := p_seq;
  record text;
  records text[] := '{}';
  events jsonb[] := '{}';
  results jsonb[] := '{}';
  head bytea := p_head;
  answer json;
begin
  perform pg_advisory_xact_lock(7164101);
  t := leasehold_now();
  select coalesce(max(revision), 0) into rev from change_log;
  first_rev := rev;
  for c in select value from jsonb_array_elements(p_commands) loop
    known := null;
    if c->'request'->>'id' is not null then
      select * into known from request q where q.namespace_id = 1 and q.principal = c->'actor'->>'principal' and q.action = c->'actor'->>'action' and q.request_id = (c->'request'->>'id')::uuid;
      if found then
        results := results || case when known.request_hash = c->'request'->>'hash' then (known.result::jsonb || '{"replay":true}') else refuse('CONFLICT') end;
        continue;
      end if;
    end if;
    r := apply_change(c, t);
    if not (r->>'ok')::boolean then
      results := results || r;
      continue;
    end if;
    if jsonb_typeof(r->'event') = 'object' then
      rev := rev + 1;
      events := events || (r->'event' || jsonb_build_object('revision', rev, 'path', c->'path'));
    end if;
    seq := seq + 1;
    record := audit_text(seq, c, 'ok', (r->>'version')::bigint, case when jsonb_typeof(r->'event') = 'object' then rev end);
    records := records || record;
    r := jsonb_build_object('ok', true, 'revision', rev, 'result', r->'result');
    results := results || r;
    if c->'request'->>'id' is not null then
      insert into request (namespace_id, principal, action, request_id, request_hash, result, created_at)
        values (1, c->'actor'->>'principal', c->'actor'->>'action', (c->'request'->>'id')::uuid, c->'request'->>'hash', r::json, t);
    end if;
  end loop;

  if cardinality(events) > 0 then
    insert into change_log (revision, namespace_id, at, type, path, version, versions, lease_id, principal, expire_at, removed, decides_reads)
      select (e->>'revision')::bigint, 1, t, (e->>'type')::smallint, e->>'path', coalesce((e->>'version')::bigint, 0),
        coalesce(array(select x::bigint from jsonb_array_elements_text(e->'versions') x), '{}'), (e->>'lease_id')::uuid, coalesce(e->>'principal', ''),
        (e->>'expire_at')::timestamptz, coalesce((e->>'removed')::boolean, false), (e->>'type')::smallint not between 20 and 39
      from unnest(events) e;
  end if;
  if cardinality(records) > 0 then
    head := sha256(p_head || convert_to('[' || array_to_string(records, ',') || ']', 'UTF8'));
    insert into audit_batch (chain, batch, last_seq, head) values (p_chain, p_batch, seq, head);
    insert into audit_record (chain, seq, record) select p_chain, p_seq + i, x::json from unnest(records) with ordinality u(x, i);
  end if;
  answer := json_build_object('epoch', (select epoch from store_state), 'timeline', ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint,
    'revision', rev, 'changed', rev > first_rev, 'head', encode(head, 'hex'), 'last_seq', seq, 'results', to_json(results));
  if cardinality(records) > 0 then
    insert into commit_result (chain, batch, outcome) values (p_chain, p_batch, answer)
      on conflict (chain) do update set batch = excluded.batch, outcome = excluded.outcome;
  end if;
  return answer;
end $$;

-- The reads' chain: records were hashed by the process. Answers the newest revision that decides reads, taken after the insert.
create function append_audit(p_chain text, p_batch bigint, p_last_seq bigint, p_head bytea, p_records json) returns bigint language plpgsql as $$
begin
  insert into audit_batch (chain, batch, last_seq, head) values (p_chain, p_batch, p_last_seq, p_head);
  insert into audit_record (chain, seq, record) select p_chain, (x->>'seq')::bigint, x from json_array_elements(p_records) x;
  return coalesce((select revision from change_log where decides_reads order by revision desc limit 1), 0);
end $$;
