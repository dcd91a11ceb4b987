-- What is known of targets beyond their leases: the marks that this ledger left on them, quarantines, and what scans found. (docs/adr/0010.)

-- Committed before a mark is written to its target: a mark found there that is not here was left by another history of this ledger.
create table witness_mark (
  mark uuid primary key,
  target_uid uuid not null,
  epoch bigint not null,
  at timestamptz not null
);
create index witness_mark_newest on witness_mark (target_uid, at desc);

create table quarantine (
  target_uid uuid primary key,
  reason text not null check (reason in ('witness_ahead', 'witness_unknown')),
  -- The foreign mark; when it is still there at `ends_at`, no other broker was at work meanwhile.
  witness_mark text not null,
  witness_epoch bigint not null,
  since timestamptz not null,
  ends_at timestamptz not null
);

create table finding (
  id uuid primary key,
  namespace_id smallint not null,
  kind text not null check (kind in ('ORPHAN', 'LEASE_WITHOUT_LOGIN', 'QUARANTINE')),
  target_uid uuid not null,
  name text collate "C" not null,
  oid text not null default '',
  first_seen timestamptz not null,
  last_seen timestamptz not null,
  state text not null default 'OPEN' check (state in ('OPEN', 'RESOLVED')),
  resolution text not null default ''
);
create unique index finding_open on finding (target_uid, kind, name, oid) where state = 'OPEN';
create index finding_newest on finding (namespace_id, first_seen desc, id desc);

-- args: target_uid, mark; `above`: first raises the store's epoch above this one (a quarantine is released). Forgets marks older than 10 days, but for the newest: a target restored from before then
-- comes into quarantine.
create function witness_mark_made(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  e bigint;
begin
  update store_state set epoch = greatest(epoch, (a->>'above')::bigint) + 1 where a->>'above' is not null;
  select epoch into e from store_state;
  delete from witness_mark where target_uid = (a->>'target_uid')::uuid and at < t - interval '10 days'
    and mark <> (select m.mark from witness_mark m where m.target_uid = (a->>'target_uid')::uuid order by m.at desc limit 1);
  insert into witness_mark (mark, target_uid, epoch, at) values ((a->>'mark')::uuid, (a->>'target_uid')::uuid, e, t);
  return done(jsonb_build_object('epoch', e));
end $$;

-- args: id, target_uid, reason, witness_mark, witness_epoch, grace_ms. Until the newest lease that another history could have issued is over. STALE: it is in quarantine already.
create function quarantine_begin(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  insert into quarantine (target_uid, reason, witness_mark, witness_epoch, since, ends_at)
    values ((a->>'target_uid')::uuid, a->>'reason', a->>'witness_mark', (a->>'witness_epoch')::bigint, t, quarantine_end(a, t)) on conflict do nothing;
  if not found then return refuse('STALE'); end if;
  insert into finding (id, namespace_id, kind, target_uid, name, first_seen, last_seen)
    values ((a->>'id')::uuid, 1, 'QUARANTINE', (a->>'target_uid')::uuid, a->>'reason', t, t) on conflict do nothing;
  return done('{}', '{"type":26}');
end $$;

-- The other history may know other roles than we: no lease is longer than 32 days.
create function quarantine_end(a jsonb, t timestamptz) returns timestamptz language sql stable as
$$ select t + interval '32 days' + (a->>'grace_ms')::bigint * interval '1 ms' $$;

-- args: target_uid, witness_mark, witness_epoch, grace_ms. The mark moved: another broker is at work there.
create function quarantine_extend(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  update quarantine set witness_mark = a->>'witness_mark', witness_epoch = (a->>'witness_epoch')::bigint, ends_at = quarantine_end(a, t) where target_uid = (a->>'target_uid')::uuid;
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

-- args: target_uid, resolution.
create function quarantine_ended(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  delete from quarantine where target_uid = (a->>'target_uid')::uuid;
  if not found then return refuse('STALE'); end if;
  update finding set state = 'RESOLVED', resolution = a->>'resolution', last_seen = t where target_uid = (a->>'target_uid')::uuid and kind = 'QUARANTINE' and state = 'OPEN';
  return done('{}', '{"type":26,"removed":true}');
end $$;

-- args: id, kind, target_uid, name, oid. Answers how long ago it was first seen.
create function finding_raise(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  f finding%rowtype;
begin
  insert into finding (id, namespace_id, kind, target_uid, name, oid, first_seen, last_seen)
    values ((a->>'id')::uuid, 1, a->>'kind', (a->>'target_uid')::uuid, a->>'name', a->>'oid', t, t)
    on conflict (target_uid, kind, name, oid) where state = 'OPEN' do update set last_seen = t returning * into f;
  return done(jsonb_build_object('id', f.id, 'age_ms', floor(extract(epoch from t - f.first_seen) * 1000)::bigint),
    case when f.id = (a->>'id')::uuid then jsonb_build_object('type', case a->>'kind' when 'ORPHAN' then 25 else 26 end) end);
end $$;

-- args: id, resolution.
create function finding_resolve(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
begin
  update finding set state = 'RESOLVED', resolution = c->'args'->>'resolution', last_seen = t where id = (c->'args'->>'id')::uuid and state = 'OPEN';
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

insert into change_kind (kind, handler) values
  ('witness.mark', 'witness_mark_made'), ('quarantine.begin', 'quarantine_begin'), ('quarantine.extend', 'quarantine_extend'), ('quarantine.end', 'quarantine_ended'),
  ('finding.raise', 'finding_raise'), ('finding.resolve', 'finding_resolve');
