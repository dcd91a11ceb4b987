-- A renewal, and an issue from the warm pool, are one commit before the target is asked and none before the answer: what the ledger has decided the target is brought to, by whoever asked for it or, if he
-- died, by the schedule. `renewing_to` and `enabling` say what the target has not been seen to do yet. And a commit of few changes goes step by step: the statements for many cost 1.2 ms of CPU for one.
-- (docs/adr/0014, docs/benchmarks.md.)

alter table lease
  -- ACTIVE, taken from the pool: its login has not been seen to be enabled.
  add column enabling boolean not null default false,
  -- Keyed hash of the lease's id for its audit record, of a login of the pool: who takes it learns its id by the same commit that writes the record.
  add column fingerprint text;

-- PostgreSQL parses a check's stored text anew at every execution: these took a tenth of a commit. Only the functions here write states and causes, and the model test knows them all.
alter table lease drop constraint lease_state_check, drop constraint lease_end_cause_check;
-- A partition's check on its day is for being attached without being read, and for nothing after that.
create or replace function ensure_audit_partitions(days integer) returns integer language plpgsql as $$
declare
  d date := (clock_timestamp() at time zone 'UTC')::date - 1;
  name text;
  made integer := 0;
begin
  for i in 0..days loop
    name := 'audit_record_' || to_char(d + i, 'YYYYMMDD');
    if to_regclass(name) is null then
      execute format('create table %I (like audit_record including defaults including constraints)', name);
      execute format('alter table %I add primary key (chain, seq, day)', name);
      execute format('alter table %I add constraint %I check (day >= %L and day < %L)', name, name || '_day', d + i, d + i + 1);
      execute format('alter table audit_record attach partition %I for values from (%L) to (%L)', name, d + i, d + i + 1);
      execute format('alter table %I drop constraint %I', name, name || '_day');
      made := made + 1;
    end if;
  end loop;
  return made;
end $$;
do $$
declare
  x record;
begin
  for x in select c.conname, c.conrelid::regclass as name from pg_constraint c join pg_inherits h on h.inhrelid = c.conrelid
    where h.inhparent = 'audit_record'::regclass and c.contype = 'c' and c.conname like 'audit_record_%_day'
  loop
    execute format('alter table %s drop constraint %I', x.name, x.conname);
  end loop;
end $$;

-- ------------------------------------------------------------------------------------------------------------ the warm pool

-- As in 0004, with the fingerprint.
create or replace function leases_stock(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (
    select i, c->>'path' as path, c->>'fingerprint' as fingerprint, a.*
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
        issued_at, expire_at, renew_at, max_expire_at, deadline_at, next_action_at, role_uid, role_generation, pooled, fingerprint)
      select id, 1, path, target_uid, '', 'PENDING', username, system_identifier, owned_objects, decode(sealed, 'base64'), key_id, max_age_ms,
        t, t + max_age_ms * interval '1 ms', t, t + max_age_ms * interval '1 ms', t + rollback_ms * interval '1 ms', t + rollback_ms * interval '1 ms', role_uid, role_generation, true, fingerprint
        from judged where refusal is null)
  select array_agg(coalesce(refusal, done('{}')) order by i) into answers from judged;
  return answers;
end $$;

-- The request that has a lease already, and the quotas of the role: what stands against one more lease; null if nothing does. Quotas are counted, not kept: the lock of commit_changes() lets nobody else in
-- between, and a count can't drift.
create function lease_refusal(c jsonb, a jsonb) returns jsonb language plpgsql as $$
declare
  known record;
  p text := c->>'path';
  who text := c->'actor'->>'principal';
begin
  if a ? 'request_id' then
    select id, request_hash into known from lease where request_id is not null and namespace_id = 1 and principal = who and request_id = (a->>'request_id')::uuid;
    if found and known.request_hash <> a->>'request_hash' then return refuse('CONFLICT'); end if;
    if found then return refuse('REPLAY', jsonb_build_object('lease', known.id)); end if;
  end if;
  if not exists (select from role where namespace_id = 1 and path = p and uid = (a->>'role_uid')::uuid and generation = (a->>'role_generation')::bigint) then return refuse('STALE'); end if;
  if a ? 'max_live' and (select count(*) from lease where path = p and live and not shelf) >= (a->>'max_live')::bigint then
    return refuse('LEASE_QUOTA', jsonb_build_object('quota', 'max_leases', 'limit', a->>'max_live'));
  end if;
  if a ? 'max_live_per_principal' and (select count(*) from lease where path = p and principal = who and live and not shelf) >= (a->>'max_live_per_principal')::bigint then
    return refuse('LEASE_QUOTA', jsonb_build_object('quota', 'max_leases_per_principal', 'limit', a->>'max_live_per_principal'));
  end if;
  return null;
end $$;

-- READY → ACTIVE, for whoever asks; the event LEASE_ISSUED. args: role_uid, role_generation, default_ttl_ms, ttl_ms, renew_ms, max_ttl_ms, redo_ms, request, quotas. `taken` is null when there is no such login:
-- nothing was done then, and nothing is recorded. Until `lease.confirm` the login may be unable to log in; the schedule sees to it after redo_ms, and anyone who is answered the lease again.
create function lease_take(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  refusal jsonb := lease_refusal(c, a);
  free uuid;
  l lease%rowtype;
begin
  if refusal is not null then return refusal; end if;
  select id into free from lease where shelf and state = 'READY' and path = c->>'path' and role_uid = (a->>'role_uid')::uuid and role_generation = (a->>'role_generation')::bigint and expire_at > t
    order by issued_at limit 1 for update;
  if not found then return done('{"taken":null}') || '{"unrecorded":true}'; end if;
  update lease set state = 'ACTIVE', generation = generation + 1, principal = c->'actor'->>'principal', request_id = (a->>'request_id')::uuid, request_hash = a->>'request_hash', pooled = false,
      default_ttl_ms = (a->>'default_ttl_ms')::bigint, issued_at = t, expire_at = t + (a->>'ttl_ms')::bigint * interval '1 ms', renew_at = t + (a->>'renew_ms')::bigint * interval '1 ms',
      max_expire_at = t + (a->>'max_ttl_ms')::bigint * interval '1 ms', enabling = true, next_action_at = t + least((a->>'ttl_ms')::bigint, (a->>'redo_ms')::bigint) * interval '1 ms',
      trace_id = coalesce(c->'actor'->>'traceId', '')
    where id = free returning * into l;
  return done(jsonb_build_object('issued_at', iso(t), 'taken', jsonb_build_object('id', l.id, 'generation', l.generation, 'username', l.username, 'oid', l.login_oid,
      'system_identifier', l.system_identifier, 'connection', l.connection, 'owned_objects', l.owned_objects, 'sealed', encode(l.sealed, 'base64'))),
    jsonb_build_object('type', 20, 'lease_id', l.id, 'principal', l.principal, 'expire_at', iso(l.expire_at))) || jsonb_build_object('fingerprint', l.fingerprint);
end $$;

-- Logins of leases that were taken have been enabled. args: id, generation. An undelivered lease stays due when it was.
create function leases_confirm(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (select i, a.* from unnest(cs) with ordinality u (c, i), jsonb_to_record(c->'args') a (id uuid, generation bigint)),
  moved as (
    update lease l set enabling = false, attempts = 0, problem = null, next_action_at = case when l.delivered then l.expire_at else l.next_action_at end
      from asked a where l.id = a.id and l.state = 'ACTIVE' and l.enabling and l.generation = a.generation returning a.i)
  select array_agg(case when m.i is null then refuse('STALE') else done('{}') end order by a.i) into answers from asked a left join moved m using (i);
  return answers;
end $$;

-- As in 0003; one that has not been seen to be enabled stays due for that.
create or replace function lease_delivery(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  l lease%rowtype;
begin
  if (a->>'delivered')::boolean then
    -- A renewal under way holds the generation, and has moved it already.
    update lease set delivered = true, generation = generation + (renewing_to is null)::integer,
        next_action_at = case when renewing_to is null and not enabling then expire_at else next_action_at end
      where id = (a->>'id')::uuid and state = 'ACTIVE' and expire_at > t returning * into l;
  else
    update lease set delivered = false, generation = generation + 1, next_action_at = least(expire_at, t + (a->>'wait_ms')::bigint * interval '1 ms')
      where id = (a->>'id')::uuid and state = 'ACTIVE' and renewing_to is null and generation = (a->>'generation')::bigint returning * into l;
  end if;
  if not found then return refuse('STALE'); end if;
  return done(jsonb_build_object('generation', l.generation));
end $$;

-- As in 0004, without the pool, which lease_take empties first.
create or replace function leases_create(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (
    select i, c->>'path' as path, c->'actor'->>'principal' as principal, coalesce(c->'actor'->>'traceId', '') as trace_id, a.*
      from unnest(cs) with ordinality u (c, i),
        jsonb_to_record(c->'args') a (id uuid, role_uid uuid, role_generation bigint, target_uid uuid, username text, system_identifier text, owned_objects jsonb, sealed text,
          key_id integer, default_ttl_ms bigint, ttl_ms bigint, renew_ms bigint, max_ttl_ms bigint, rollback_ms bigint, request_id uuid, request_hash text,
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
  made as (
    insert into lease (id, namespace_id, path, target_uid, principal, request_id, request_hash, state, username, system_identifier, owned_objects, sealed, key_id, default_ttl_ms,
        issued_at, expire_at, renew_at, max_expire_at, deadline_at, next_action_at, trace_id, role_uid, role_generation)
      select id, 1, path, target_uid, principal, request_id, request_hash, 'PENDING', username, system_identifier, owned_objects, decode(sealed, 'base64'), key_id, default_ttl_ms,
        t, t + ttl_ms * interval '1 ms', t + renew_ms * interval '1 ms', t + max_ttl_ms * interval '1 ms', t + rollback_ms * interval '1 ms', t + rollback_ms * interval '1 ms',
        trace_id, role_uid, role_generation
        from asked join judged j using (i) where j.refusal is null)
  -- (`taken`: for a binary of before this migration.)
  select array_agg(coalesce(j.refusal, done(jsonb_build_object('issued_at', iso(t), 'taken', null))) order by j.i) into answers from judged j;
  return answers;
end $$;

-- ------------------------------------------------------------------------------------------------------------ renewal

-- ACTIVE: the lease ends later from now on; the event LEASE_RENEWED. `renewing_to` is set until the target's VALID UNTIL has been seen to follow (finding 17): the schedule sees to it after redo_ms.
-- The database's clock decides; a renewal never shortens a lease: that is what revoke is for. One at a time: of two, the later on the target need not be the later here, and a VALID UNTIL could lie
-- before the ledger's end.
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
  if l.renewing_to is not null or l.enabling then return refuse('REQUEST_IN_FLIGHT'); end if;
  wanted := t + coalesce((a->>'increment_ms')::bigint, l.default_ttl_ms) * interval '1 ms';
  until := least(wanted, l.max_expire_at);
  if until <= l.expire_at then return done(jsonb_build_object('unchanged', true, 'limited', l.max_expire_at < wanted)) || '{"unrecorded":true}'; end if;
  update lease set expire_at = until, renew_at = t + (until - t) * (a->>'renew_share')::double precision, renewing_to = until, generation = generation + 1,
      next_action_at = least(until, t + (a->>'redo_ms')::bigint * interval '1 ms')
    where id = l.id returning * into l;
  return done(login_of(l) || jsonb_build_object('principal', l.principal, 'issued_at', iso(l.issued_at), 'max_expire_at', iso(l.max_expire_at), 'unchanged', false, 'limited', until < wanted, 'valid_for_ms', floor(extract(epoch from until - t) * 1000), 'expire_at', iso(until), 'renew_at', iso(l.renew_at)),
    jsonb_build_object('type', 21, 'lease_id', l.id, 'principal', l.principal, 'expire_at', iso(until)));
end $$;

-- The target's VALID UNTIL has followed renewals. args: id, generation. (The answer is for a binary of before this migration.)
create or replace function leases_finish_renew(cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
declare
  answers jsonb[];
begin
  with asked as materialized (select i, a.* from unnest(cs) with ordinality u (c, i), jsonb_to_record(c->'args') a (id uuid, generation bigint)),
  moved as (
    update lease l set renewing_to = null, attempts = 0, problem = null, next_action_at = l.expire_at
      from asked a where l.id = a.id and l.state = 'ACTIVE' and l.renewing_to is not null and l.generation = a.generation returning a.i, l.generation, l.expire_at, l.renew_at)
  select array_agg(case when m.i is null then refuse('STALE')
      else done(jsonb_build_object('generation', m.generation, 'expire_at', iso(m.expire_at), 'renew_at', iso(m.renew_at))) end order by a.i) into answers from asked a left join moved m using (i);
  return answers;
end $$;

drop function leases_begin_renew(jsonb[], timestamptz);

-- ------------------------------------------------------------------------------------------------------------ the committer's call

create or replace function apply_many(kind text, cs jsonb[], t timestamptz) returns jsonb[] language plpgsql as $$
begin
  case kind
    when 'lease.create' then return leases_create(cs, t);
    when 'lease.stock' then return leases_stock(cs, t);
    when 'lease.shelve' then return leases_shelve(cs, t);
    when 'lease.activate' then return leases_activate(cs, t);
    when 'lease.confirm' then return leases_confirm(cs, t);
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
    when 'lease.take' then return lease_take(c, t);
    when 'lease.begin_renew' then return lease_begin_renew(c, t);
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

-- `fingerprint`: of the lease, where the process that wrote `rest` could not know which one it would be.
drop function audit_text(bigint, text, bigint, text);
create function audit_text(seq bigint, version text, revision bigint, fingerprint text, rest text) returns text language sql stable as $$
  select '{"seq":' || seq || coalesce(',"version":' || version, '') || coalesce(',"revision":' || revision, '') || coalesce(',"lease":' || to_json(fingerprint), '') || ',' || substr(rest, 2)
$$;

-- What every commit begins with: the lock, and that this one was not done already. Answers the time of the commit.
create function commit_begin(p_chain text, p_commit bigint) returns timestamptz language plpgsql as $$
begin
  perform pg_advisory_xact_lock(7164101);
  if exists (select from commit_result where chain = p_chain and batch >= p_commit) then
    raise exception using errcode = 'unique_violation', message = 'this batch was committed before';
  end if;
  return leasehold_now();
end $$;

-- What every commit ends with: the answer, kept until the next one.
create function commit_end(p_chain text, p_commit bigint, first_rev bigint, rev bigint, head bytea, last_seq bigint, results json) returns json language plpgsql as $$
declare
  answer json;
begin
  answer := json_build_object('epoch', (select epoch from store_state), 'timeline', ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint,
    'revision', rev, 'changed', rev > first_rev, 'head', encode(head, 'hex'), 'last_seq', last_seq, 'results', results);
  insert into commit_result (chain, batch, outcome) values (p_chain, p_commit, answer)
    on conflict (chain) do update set batch = excluded.batch, outcome = excluded.outcome;
  return answer;
end $$;

-- A batch of few: one change after the other.
create function commit_few(p_chain text, p_commit bigint, p_batch bigint, p_seq bigint, p_head bytea, p_commands jsonb) returns json language plpgsql as $$
declare
  t timestamptz := commit_begin(p_chain, p_commit);
  first_rev bigint := coalesce((select max(revision) from change_log), 0);
  rev bigint := first_rev;
  seq bigint := p_seq;
  head bytea := p_head;
  c jsonb;
  r jsonb;
  e jsonb;
  known record;
  evented boolean;
  record_text text;
  texts text[] := '{}';
  results jsonb[] := '{}';
begin
  for i in 0 .. jsonb_array_length(p_commands) - 1 loop
    c := p_commands->i;
    r := null;
    if c->'request'->>'id' is not null then
      select request_hash, result into known from request
        where namespace_id = 1 and principal = c->'actor'->>'principal' and action = c->'actor'->>'action' and request_id = (c->'request'->>'id')::uuid;
      if found then r := case when known.request_hash = c->'request'->>'hash' then known.result::jsonb || '{"replay":true}' else refuse('CONFLICT') end; end if;
    end if;
    if r is null then
      r := coalesce((apply_many(c->>'kind', array[c], t))[1], apply_change(c, t));
      if (r->>'ok')::boolean then
        e := r->'event';
        evented := jsonb_typeof(e) = 'object';
        if evented then
          rev := rev + 1;
          insert into change_log (revision, namespace_id, at, type, path, version, versions, lease_id, principal, expire_at, removed, decides_reads)
            values (rev, 1, t, (e->>'type')::smallint, c->>'path', coalesce((e->>'version')::bigint, 0),
              case when e ? 'versions' then array(select jsonb_array_elements_text(e->'versions')::bigint) else '{}' end,
              (e->>'lease_id')::uuid, coalesce(e->>'principal', ''), (e->>'expire_at')::timestamptz, coalesce((e->>'removed')::boolean, false), (e->>'type')::smallint not between 20 and 39);
        end if;
        if c->'request'->>'id' is not null then
          insert into request (namespace_id, principal, action, request_id, request_hash, result, created_at)
            values (1, c->'actor'->>'principal', c->'actor'->>'action', (c->'request'->>'id')::uuid, c->'request'->>'hash', json_build_object('ok', true, 'revision', rev, 'result', r->'result'), t);
        end if;
        if c ? 'audit' and not r ? 'unrecorded' then
          seq := seq + 1;
          record_text := audit_text(seq, r->>'version', case when evented then rev end, r->>'fingerprint', c->>'audit');
          insert into audit_record (chain, seq, record) values (p_chain, seq, record_text::json);
          texts := texts || record_text;
        end if;
        r := jsonb_build_object('ok', true, 'revision', rev, 'result', r->'result');
      end if;
    end if;
    results := results || r;
  end loop;
  if seq > p_seq then
    head := sha256(p_head || convert_to('[' || array_to_string(texts, ',') || ']', 'UTF8'));
    insert into audit_batch (chain, batch, last_seq, head) values (p_chain, p_batch, seq, head);
  end if;
  return commit_end(p_chain, p_commit, first_rev, rev, head, seq, array_to_json(results));
end $$;

-- As in 0004; what a result says besides: `unrecorded`, nothing was done that is to be recorded; `fingerprint`, the lease's.
create or replace function commit_changes(p_chain text, p_commit bigint, p_batch bigint, p_seq bigint, p_head bytea, p_commands jsonb) returns json language plpgsql as $$
declare
  t timestamptz;
  commands jsonb[];
  results jsonb[];
  grouped record;
  outcomes jsonb[];
  rev bigint;
  first_rev bigint;
  v_head bytea;
  recorded bigint;
  answers json;
begin
  if jsonb_array_length(p_commands) <= 3 then return commit_few(p_chain, p_commit, p_batch, p_seq, p_head, p_commands); end if;
  t := commit_begin(p_chain, p_commit);
  commands := array(select value from jsonb_array_elements(p_commands));
  results := array_fill(null::jsonb, array[cardinality(commands)]);
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
    select i, c, r, d.did, d.did and jsonb_typeof(r->'event') = 'object' as evented, d.did and c ? 'audit' and not r ? 'unrecorded' as recorded
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
    select seq, audit_text(seq, r->>'version', case when evented then revision end, r->>'fingerprint', c->>'audit') as record from numbered n where n.recorded),
  chained as (select count(*) as n, sha256(p_head || convert_to('[' || coalesce(string_agg(record, ',' order by seq), '') || ']', 'UTF8')) as head from texts),
  batched as (insert into audit_batch (chain, batch, last_seq, head) select p_chain, p_batch, p_seq + n, head from chained where n > 0),
  written as (insert into audit_record (chain, seq, record) select p_chain, seq, record::json from texts)
  select n, head, (select max(revision) from numbered),
      (select json_agg(case when did then jsonb_build_object('ok', true, 'revision', revision, 'result', r->'result') else r end order by i) from numbered)
    into recorded, v_head, rev, answers from chained;
  if recorded = 0 then v_head := p_head; end if;
  return commit_end(p_chain, p_commit, first_rev, rev, v_head, p_seq + recorded, answers);
end $$;
