-- What was last seen of a target (docs/adr/0012), and what is done there by the calendar: scans, and the rotation of the broker's own login.

-- Marks in the order of their commits. On a target they only ever go up: whoever writes one has read, there, one that was committed before.
alter table witness_mark add column n bigint generated always as identity;

-- `n`: the newest mark that certainly stood on the target; 0: unknown, since an older broker did not say whether its marks arrived. A target whose mark is older is older itself.
create table target_sight (
  target_uid uuid primary key,
  n bigint not null default 0,
  -- Where it was asked, `host:port`; empty: unknown.
  address text not null default '',
  system_identifier text not null default '',
  timeline bigint not null default 0,
  seen_at timestamptz not null
);
insert into target_sight (target_uid, seen_at) select distinct m.target_uid, leasehold_now() from witness_mark m join target x on x.uid = m.target_uid;

-- `upkeep`: src/model/target.ts.
alter table target
  add column upkeep jsonb not null default '{}',
  add column scan_at timestamptz not null default leasehold_now() + random() * interval '1 hour',
  add column login_rotated_at timestamptz not null default leasehold_now();

alter table quarantine drop constraint quarantine_reason_check;
alter table quarantine add constraint quarantine_reason_check
  check (reason in ('witness_ahead', 'witness_unknown', 'witness_missing', 'witness_behind', 'different_server'));

-- a: target_uid, address, system_identifier, timeline; `behind`: its mark was older than one that had stood there; `reset`: on an operator's word this is the target from now on. m: the mark that stands
-- there. A scan becomes due when the target may have gone back in time.
create function target_seen(a jsonb, m uuid, t timestamptz) returns void language plpgsql as $$
declare
  s target_sight%rowtype;
  place bigint := coalesce((select n from witness_mark where mark = m), 0);
begin
  select * into s from target_sight where target_uid = (a->>'target_uid')::uuid for update;
  if coalesce((a->>'behind')::boolean, false) or coalesce((a->>'reset')::boolean, false) or (found and s.timeline not in (0, (a->>'timeline')::bigint)) then
    update target set scan_at = least(scan_at, t) where uid = (a->>'target_uid')::uuid;
  end if;
  insert into target_sight as k (target_uid, n, address, system_identifier, timeline, seen_at)
    values ((a->>'target_uid')::uuid, place, a->>'address', a->>'system_identifier', (a->>'timeline')::bigint, t)
    on conflict (target_uid) do update set n = greatest(k.n, excluded.n), address = excluded.address, system_identifier = excluded.system_identifier, timeline = excluded.timeline, seen_at = t;
end $$;

-- As in 0005; `seen`: the mark it is to replace, and what target_seen() takes. (A broker before 0009 says nothing of that.)
create or replace function witness_mark_made(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  e bigint;
begin
  update store_state set epoch = greatest(epoch, (a->>'above')::bigint) + 1 where a->>'above' is not null;
  select epoch into e from store_state;
  delete from witness_mark where target_uid = (a->>'target_uid')::uuid and at < t - interval '10 days' and mark is distinct from (a->>'seen')::uuid
    and mark <> (select m.mark from witness_mark m where m.target_uid = (a->>'target_uid')::uuid order by m.n desc limit 1);
  insert into witness_mark (mark, target_uid, epoch, at) values ((a->>'mark')::uuid, (a->>'target_uid')::uuid, e, t);
  if a->>'seen' is not null and a ? 'timeline' then perform target_seen(a, (a->>'seen')::uuid, t); end if;
  return done(jsonb_build_object('epoch', e));
end $$;

-- args: target_uid, mark, address, system_identifier, timeline. The mark has arrived.
create function witness_seen(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
begin
  perform target_seen(c->'args', (c->'args'->>'mark')::uuid, t);
  return done('{}');
end $$;

-- Until the newest lease that another history could have issued is over: from now on the longest of the target's roles, and what this ledger knows. Without a role, 32 days: no lease is longer.
create or replace function quarantine_end(a jsonb, t timestamptz) returns timestamptz language sql stable as $$
  select greatest(t + coalesce((select max((document->>'maxTtlMs')::bigint) from role where target_uid = (a->>'target_uid')::uuid) * interval '1 ms', interval '32 days'),
      (select max(max_expire_at) from lease where target_uid = (a->>'target_uid')::uuid and live)) + (a->>'grace_ms')::bigint * interval '1 ms'
$$;

-- A throw-away login of `target test` lives for less than a minute and is nobody's lease: an orphan of that name is one only when it was seen longer.
create function is_trial(f finding) returns boolean language sql immutable as $$
  select f.kind = 'ORPHAN' and f.name ~ '^lh_[a-z0-9]+_preflight_' and f.last_seen - f.first_seen < interval '1 minute'
$$;

-- As in 0005, but for trials. Answers how long ago it was first seen.
create or replace function finding_raise(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  was finding%rowtype;
  f finding%rowtype;
begin
  select * into was from finding where target_uid = (a->>'target_uid')::uuid and kind = a->>'kind' and name = a->>'name' and oid = a->>'oid' and state = 'OPEN';
  insert into finding (id, namespace_id, kind, target_uid, name, oid, first_seen, last_seen)
    values ((a->>'id')::uuid, 1, a->>'kind', (a->>'target_uid')::uuid, a->>'name', a->>'oid', t, t)
    on conflict (target_uid, kind, name, oid) where state = 'OPEN' do update set last_seen = t returning * into f;
  return done(jsonb_build_object('id', f.id, 'age_ms', floor(extract(epoch from t - f.first_seen) * 1000)::bigint),
    case when (was.id is null or is_trial(was)) and not is_trial(f) then jsonb_build_object('type', case a->>'kind' when 'ORPHAN' then 25 else 26 end) end);
end $$;

-- args: target_uid, before. A scan that began then has ended: what it has not seen again is over.
create function findings_settle(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
begin
  delete from finding f where target_uid = (c->'args'->>'target_uid')::uuid and state = 'OPEN' and last_seen < (c->'args'->>'before')::timestamptz and is_trial(f);
  update finding set state = 'RESOLVED', resolution = case kind when 'ORPHAN' then 'gone' else 'lease ended' end, last_seen = t
    where target_uid = (c->'args'->>'target_uid')::uuid and state = 'OPEN' and kind in ('ORPHAN', 'LEASE_WITHOUT_LOGIN') and last_seen < (c->'args'->>'before')::timestamptz;
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

-- args: uid, id, scan (arguments of the operation), interval_ms. Begins the scan that is due and says when the next one is. STALE: another replica was faster, one is running, or the target is in quarantine.
create function target_scan(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  if exists (select from operation where kind = 'scan-target' and state = 'RUNNING' and args->>'targetUid' = a->>'uid')
    or exists (select from quarantine where target_uid = (a->>'uid')::uuid) then return refuse('STALE'); end if;
  update target set scan_at = t + (a->>'interval_ms')::bigint * (0.9 + 0.2 * random()) * interval '1 ms' where uid = (a->>'uid')::uuid and scan_at <= t;
  if not found then return refuse('STALE'); end if;
  insert into operation (id, namespace_id, kind, state, args, principal, created_at, updated_at)
    values ((a->>'id')::uuid, 1, 'scan-target', 'RUNNING', a->'scan', c->'actor'->>'principal', t, t);
  return done('{}');
end $$;

-- As in 0007, with `upkeep`. (A broker before 0009 leaves it as it is.)
create or replace function target_put(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  x target%rowtype;
  etag text := coalesce(a->>'etag', '');
  soon timestamptz := t + coalesce((a->'upkeep'->>'scanIntervalMs')::bigint, 3600000) * random() * interval '1 ms';
begin
  select * into x from target where namespace_id = 1 and name = a->>'name' for update;
  if not found then
    if etag <> '' then return refuse('VERSION_MISMATCH', '{"actual":"absent"}'); end if;
    if (a->>'generation')::bigint <> 0 then return refuse('STALE'); end if;
    insert into target (uid, namespace_id, name, engine, document, sealed_password, key_id, generation, updated_at, updated_by, upkeep, scan_at, login_rotated_at)
      values ((a->>'uid')::uuid, 1, a->>'name', a->>'engine', (a->>'document')::json, decode(a->>'sealed', 'base64'), (a->>'key_id')::integer, 1, t, c->'actor'->>'principal',
        coalesce(a->'upkeep', '{}'), soon, t)
      returning * into x;
  else
    if etag not in ('', '*', x.generation::text) then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', x.generation::text)); end if;
    -- The caller decided on the row it read (whether the password may stay): it must still be that row.
    if (a->>'generation')::bigint <> x.generation or (a->>'uid')::uuid <> x.uid then return refuse('STALE'); end if;
    update target set engine = a->>'engine', document = (a->>'document')::json,
        sealed_password = coalesce(decode(a->>'sealed', 'base64'), sealed_password), key_id = coalesce((a->>'key_id')::integer, key_id),
        login = case when a->>'sealed' is null then login end, pending_login = case when a->>'sealed' is null then pending_login end,
        pending_password = case when a->>'sealed' is null then pending_password end, pending_key_id = case when a->>'sealed' is null then pending_key_id end,
        login_rotated_at = case when a->>'sealed' is null then login_rotated_at else t end,
        upkeep = coalesce(a->'upkeep', upkeep), scan_at = least(scan_at, soon), generation = generation + 1, updated_at = t, updated_by = c->'actor'->>'principal'
      where uid = x.uid returning * into x;
  end if;
  return done(jsonb_build_object('uid', x.uid, 'generation', x.generation, 'updated_at', iso(t)), '{"type":41}');
end $$;

-- As in 0006, but the target's marks stay for their ten days: whoever describes the same server anew is not to find it in quarantine.
create or replace function target_delete(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  x target%rowtype;
begin
  select * into x from target where namespace_id = 1 and name = c->'args'->>'name' for update;
  if not found then return refuse('TARGET_NOT_FOUND'); end if;
  if exists (select from role where target_uid = x.uid) then return refuse('IN_USE', '{"by":"role"}'); end if;
  if exists (select from lease where target_uid = x.uid and live) then return refuse('IN_USE', '{"by":"lease"}'); end if;
  update lease set next_action_at = null where target_uid = x.uid and next_action_at is not null;
  delete from quarantine where target_uid = x.uid;
  delete from target_sight where target_uid = x.uid;
  update finding set state = 'RESOLVED', resolution = 'target deleted', last_seen = t where target_uid = x.uid and state = 'OPEN';
  delete from target where uid = x.uid;
  return done('{}', '{"type":41,"removed":true}');
end $$;

-- As in 0007; `only_due`: not before `upkeep` says so.
create or replace function target_stage_login(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  update target set pending_login = a->>'login', pending_password = decode(a->>'sealed', 'base64'), pending_key_id = (a->>'key_id')::integer, pending_since = t
    where uid = (a->>'uid')::uuid and generation = (a->>'generation')::bigint and pending_login is null
      and (not coalesce((a->>'only_due')::boolean, false) or login_rotated_at + (upkeep->>'rotateLoginEveryMs')::bigint * interval '1 ms' <= t);
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

-- As in 0007; says when.
create or replace function target_promote_login(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  update target set other_login = coalesce(login, document->>'username'), login = pending_login, sealed_password = pending_password, key_id = pending_key_id, login_rotated_at = t,
      pending_login = null, pending_password = null, pending_key_id = null, pending_since = null, generation = generation + 1, updated_at = t, updated_by = c->'actor'->>'principal'
    where uid = (a->>'uid')::uuid and generation = (a->>'generation')::bigint and pending_login = a->>'login';
  if not found then return refuse('STALE'); end if;
  return done(jsonb_build_object('login', a->>'login'), '{"type":41}');
end $$;

insert into change_kind (kind, handler) values ('witness.seen', 'witness_seen'), ('finding.settle', 'findings_settle'), ('target.scan', 'target_scan');
