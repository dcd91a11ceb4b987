-- Durable subscriptions: a cursor in the change log that is moved when its receiver acknowledges (docs/subscriptions.md). What is delivered is read from the change log; a row here only says how far.

-- `epoch`, `revision`: the cursor; everything up to it was acknowledged, skipped or became a dead letter. `mark`: what the change there looked like, so that after a failover it shows whether the new history has it too.
-- `snapshot`: null, or where a snapshot has come to ({scope, path, lease}; {} at its start), which was begun at `revision`. `gap`: what the receiver is still to be told (leasehold.v1.Gap); `lost`: the same, while it waits.
-- `claim_*`: who works on it. A claim ends by itself; `claim_generation` counts claims and whatever must stop a running one, and fences what a late worker writes.
create table subscription (
  uid uuid primary key,
  namespace_id smallint not null references namespace,
  name text collate "C" not null,
  owner text collate "C" not null,
  document json not null,
  sink text not null check (sink in ('', 'webhook', 'redis_stream')),
  on_loss text not null check (on_loss in ('STOP', 'CONTINUE', 'SNAPSHOT')),
  sealed bytea,
  key_id integer,
  signing_key integer not null default 0,
  paused boolean not null default false,
  generation bigint not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  updated_by text not null,
  epoch bigint not null,
  revision bigint not null,
  mark text,
  snapshot jsonb,
  gap jsonb,
  lost jsonb,
  delivered bigint not null default 0,
  skipped bigint not null default 0,
  moved_at timestamptz not null,
  attempts integer not null default 0,
  refusals integer not null default 0,
  batch_limit integer not null default 0,
  last_error text not null default '',
  failing_since timestamptz,
  next_attempt_at timestamptz,
  claim_holder uuid,
  claim_until timestamptz,
  claim_generation bigint not null default 0,
  unique (namespace_id, name)
) with (fillfactor = 50);
create index subscription_key on subscription (key_id) where key_id is not null;

-- `content`: what was refused, {change, snapshot, snapshotEnd, gap}: names and numbers. `replay_at`: it is to be delivered once more.
create table dead_letter (
  id uuid primary key,
  subscription_uid uuid not null references subscription on delete cascade,
  place bigint generated always as identity,
  epoch bigint not null,
  revision bigint not null,
  content json not null,
  problem text not null,
  attempts integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  replay_at timestamptz
);
create index dead_letter_of on dead_letter (subscription_uid, place);
create index dead_letter_replay on dead_letter (subscription_uid, place) where replay_at is not null;

-- What a change looked like. Null when it is not kept any more.
create function change_mark(r bigint) returns text language sql stable as $$
  select encode(sha256(convert_to(concat_ws('|', revision, floor(extract(epoch from at) * 1000)::bigint, type, path, version, lease_id, principal), 'UTF8')), 'hex')
    from change_log where revision = r
$$;

create function change_head() returns bigint language sql stable as $$ select coalesce(max(revision), 0) from change_log $$;

-- args: uid, generation (0: it is new), name, owner, document, sink, on_loss, signing_key, etag; `sealed`, `key_id`, or `unseal`: it has no secret any more; for a new one `snapshot`, and `epoch` and `revision` to begin after.
create function subscription_put(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  s subscription%rowtype;
  etag text := coalesce(a->>'etag', '');
  e bigint;
  r bigint := coalesce((a->>'revision')::bigint, change_head());
begin
  select * into s from subscription where namespace_id = 1 and name = a->>'name' for update;
  if not found then
    if etag <> '' then return refuse('VERSION_MISMATCH', '{"actual":"absent"}'); end if;
    if (a->>'generation')::bigint <> 0 then return refuse('STALE'); end if;
    select epoch into e from store_state;
    if (a->>'epoch')::bigint <> e then return refuse('STALE'); end if;
    insert into subscription (uid, namespace_id, name, owner, document, sink, on_loss, sealed, key_id, signing_key, generation, created_at, updated_at, updated_by, epoch, revision, mark, snapshot, moved_at)
      values ((a->>'uid')::uuid, 1, a->>'name', a->>'owner', (a->>'document')::json, a->>'sink', a->>'on_loss', decode(a->>'sealed', 'base64'), (a->>'key_id')::integer, (a->>'signing_key')::integer,
        1, t, t, c->'actor'->>'principal', e, r, change_mark(r), case when (a->>'snapshot')::boolean then '{}'::jsonb end, t) returning * into s;
  else
    if etag not in ('', '*', s.generation::text) then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', s.generation::text)); end if;
    -- The caller decided on the row it read (which secrets may stay): it must still be that row.
    if (a->>'generation')::bigint <> s.generation or (a->>'uid')::uuid <> s.uid then return refuse('STALE'); end if;
    update subscription set owner = a->>'owner', document = (a->>'document')::json, sink = a->>'sink', on_loss = a->>'on_loss', signing_key = (a->>'signing_key')::integer,
        sealed = case when (a->>'unseal')::boolean then null else coalesce(decode(a->>'sealed', 'base64'), sealed) end,
        key_id = case when (a->>'unseal')::boolean then null else coalesce((a->>'key_id')::integer, key_id) end,
        generation = generation + 1, updated_at = t, updated_by = c->'actor'->>'principal',
        batch_limit = 0, refusals = 0, next_attempt_at = null, claim_generation = claim_generation + 1, claim_until = null
      where uid = s.uid returning * into s;
  end if;
  return done(jsonb_build_object('uid', s.uid, 'generation', s.generation), '{"type":60}');
end $$;

create function subscription_delete(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  s subscription%rowtype;
  etag text := coalesce(c->'args'->>'etag', '');
begin
  select * into s from subscription where namespace_id = 1 and name = c->'args'->>'name' for update;
  if not found then return refuse('SUBSCRIPTION_NOT_FOUND'); end if;
  if etag not in ('', '*', s.generation::text) then return refuse('VERSION_MISMATCH', jsonb_build_object('actual', s.generation::text)); end if;
  delete from subscription where uid = s.uid;
  return done('{}', '{"type":60,"removed":true}');
end $$;

create function subscription_pause(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
begin
  update subscription set paused = true, claim_generation = claim_generation + 1, claim_until = null where namespace_id = 1 and name = c->'args'->>'name';
  if not found then return refuse('SUBSCRIPTION_NOT_FOUND'); end if;
  return done('{}', '{"type":60}');
end $$;

-- What is to be told of a cursor that moves from where it is to `r` in epoch `e`. `id` tells one from the next.
create function subscription_gap(s subscription, reason text, intact boolean, e bigint, r bigint, t timestamptz) returns jsonb language sql volatile as $$
  select jsonb_build_object('id', gen_random_uuid(), 'reason', reason, 'intact', intact, 'from_epoch', s.epoch, 'from_revision', s.revision, 'epoch', e, 'revision', r,
    'at', floor(extract(epoch from t) * 1000)::bigint)
$$;

-- args: name; `from`: '' (the cursor), OLDEST, NOW or SNAPSHOT. Tries at once what was failing.
create function subscription_resume(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  s subscription%rowtype;
  st store_state%rowtype;
  r bigint;
begin
  select * into s from subscription where namespace_id = 1 and name = a->>'name' for update;
  if not found then return refuse('SUBSCRIPTION_NOT_FOUND'); end if;
  select * into st from store_state;
  if a->>'from' = '' then
    if s.lost is not null then
      return refuse('SUBSCRIPTION_LOST', jsonb_build_object('problem', s.lost->>'reason', 'floor', st.floor_revision::text, 'current', change_head()::text, 'epoch', st.epoch::text));
    end if;
    update subscription set paused = false, next_attempt_at = null, claim_generation = claim_generation + 1, claim_until = null where uid = s.uid;
    return done('{}', '{"type":60}');
  end if;
  r := case a->>'from' when 'OLDEST' then st.floor_revision else change_head() end;
  update subscription set paused = false, lost = null, epoch = st.epoch, revision = r, mark = change_mark(r), snapshot = case a->>'from' when 'SNAPSHOT' then '{}'::jsonb end,
      gap = coalesce(s.lost || jsonb_build_object('epoch', st.epoch, 'revision', r), subscription_gap(s, 'MOVED', false, st.epoch, r, t)), moved_at = t,
      attempts = 0, refusals = 0, batch_limit = 0, last_error = '', failing_since = null, next_attempt_at = null, claim_generation = claim_generation + 1, claim_until = null
    where uid = s.uid;
  return done('{}', '{"type":60}');
end $$;

-- A delivery was acknowledged. args: uid, epoch, revision, delivered, skipped; `claim`: of the worker or of the consumer's stream; `snapshot`: where it has come to, null at its end, left out where there is none; `gap`: id of the
-- one that was told; `batch_limit`. STALE: the claim is another's by now, or the cursor was moved. A cursor never goes back.
create function subscription_advance(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  s subscription%rowtype;
  r bigint := (a->>'revision')::bigint;
begin
  select * into s from subscription where uid = (a->>'uid')::uuid for update;
  if not found or s.lost is not null or s.epoch <> (a->>'epoch')::bigint or s.claim_generation <> (a->>'claim')::bigint then return refuse('STALE'); end if;
  if r < s.revision or (r = s.revision and a ? 'snapshot' and s.snapshot is null) then return done(jsonb_build_object('revision', s.revision)); end if;
  update subscription set revision = r, mark = case when r = s.revision then mark else change_mark(r) end,
      snapshot = case when a ? 'snapshot' then nullif(a->'snapshot', 'null'::jsonb) else snapshot end,
      gap = case when gap->>'id' = a->>'gap' then null else gap end, delivered = delivered + (a->>'delivered')::bigint, skipped = skipped + (a->>'skipped')::bigint, moved_at = t,
      attempts = 0, refusals = 0, batch_limit = coalesce((a->>'batch_limit')::integer, 0), last_error = '', failing_since = null, next_attempt_at = null
    where uid = s.uid;
  return done(jsonb_build_object('revision', r));
end $$;

-- A delivery failed. args: uid, claim, problem, delay_ms, refused (of a single event, so that it counts), batch_limit.
create function subscription_fail(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  update subscription set attempts = attempts + 1, refusals = refusals + (a->>'refused')::boolean::integer, batch_limit = (a->>'batch_limit')::integer, last_error = a->>'problem',
      failing_since = coalesce(failing_since, t), next_attempt_at = t + (a->>'delay_ms')::bigint * interval '1 ms'
    where uid = (a->>'uid')::uuid and claim_generation = (a->>'claim')::bigint;
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

-- A single event was refused too often: it goes to the dead letters and the cursor behind it. args: those of subscription_advance, with `id`, `content`, `problem`, `tries`.
create function subscription_bury(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  moved jsonb := subscription_advance(c, t);
begin
  if not (moved->>'ok')::boolean then return moved; end if;
  insert into dead_letter (id, subscription_uid, epoch, revision, content, problem, attempts, created_at, updated_at)
    values ((a->>'id')::uuid, (a->>'uid')::uuid, (a->>'epoch')::bigint, (a->>'revision')::bigint, (a->>'content')::json, a->>'problem', (a->>'tries')::integer, t, t);
  return moved;
end $$;

-- The cursor's place is not what it was. args: uid, reason: COMPACTED or EPOCH_CHANGED. In a new epoch whose history has the cursor's change in its place nothing was lost, and only that is told. STALE: it was seen to already.
create function subscription_lose(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  s subscription%rowtype;
  st store_state%rowtype;
  r bigint;
  told jsonb;
begin
  select * into s from subscription where uid = (a->>'uid')::uuid for update;
  select * into st from store_state;
  if s.uid is null or s.lost is not null then return refuse('STALE'); end if;
  if a->>'reason' = 'EPOCH_CHANGED' then
    if s.epoch = st.epoch then return refuse('STALE'); end if;
    if s.mark = change_mark(s.revision) or (s.revision = 0 and st.floor_revision = 0) then
      update subscription set epoch = st.epoch, gap = case when gap is null or (gap->>'intact')::boolean then subscription_gap(s, 'EPOCH_CHANGED', true, st.epoch, s.revision, t) else gap end,
          claim_generation = claim_generation + 1, claim_until = null where uid = s.uid;
      return done('{}');
    end if;
  elsif s.epoch <> st.epoch or s.revision >= st.floor_revision then
    return refuse('STALE');
  end if;
  r := case s.on_loss when 'SNAPSHOT' then change_head() else st.floor_revision end;
  told := subscription_gap(s, a->>'reason', false, st.epoch, r, t);
  update subscription set lost = case on_loss when 'STOP' then told end, gap = case on_loss when 'STOP' then gap else told end, epoch = case on_loss when 'STOP' then epoch else st.epoch end,
      revision = case on_loss when 'STOP' then revision else r end, mark = case on_loss when 'STOP' then mark else change_mark(r) end,
      snapshot = case on_loss when 'SNAPSHOT' then '{}'::jsonb when 'STOP' then snapshot end, claim_generation = claim_generation + 1, claim_until = null
    where uid = s.uid;
  return done('{"lost":true}', '{"type":61}');
end $$;

-- args: name, ids (null: all).
create function dead_letters_replay(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  s uuid;
  n bigint;
begin
  select uid into s from subscription where namespace_id = 1 and name = a->>'name' and sink <> '' for update;
  if not found then return refuse('SUBSCRIPTION_NOT_FOUND'); end if;
  update dead_letter set replay_at = t where subscription_uid = s and replay_at is null
    and (jsonb_typeof(a->'ids') = 'null' or id in (select x::uuid from jsonb_array_elements_text(case jsonb_typeof(a->'ids') when 'array' then a->'ids' else '[]' end) x));
  get diagnostics n = row_count;
  -- Whoever works on it looks for replays when he begins.
  update subscription set claim_generation = claim_generation + 1, claim_until = null where uid = s;
  return done(jsonb_build_object('count', n), '{"type":60}');
end $$;

-- args: name, ids (null: all).
create function dead_letters_discard(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  s uuid;
  n bigint;
begin
  select uid into s from subscription where namespace_id = 1 and name = a->>'name' for update;
  if not found then return refuse('SUBSCRIPTION_NOT_FOUND'); end if;
  delete from dead_letter where subscription_uid = s
    and (jsonb_typeof(a->'ids') = 'null' or id in (select x::uuid from jsonb_array_elements_text(case jsonb_typeof(a->'ids') when 'array' then a->'ids' else '[]' end) x));
  get diagnostics n = row_count;
  -- There is room again, which whoever works on it learns when he begins.
  update subscription set claim_generation = claim_generation + 1, claim_until = null, next_attempt_at = null where uid = s;
  return done(jsonb_build_object('count', n), '{"type":60}');
end $$;

-- A dead letter was delivered once more. args: uid, claim, id; `problem`: it was refused again, else it is gone.
create function dead_letter_settle(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
begin
  if not exists (select from subscription where uid = (a->>'uid')::uuid and claim_generation = (a->>'claim')::bigint) then return refuse('STALE'); end if;
  if a->>'problem' is null then
    delete from dead_letter where id = (a->>'id')::uuid;
  else
    update dead_letter set replay_at = null, attempts = attempts + 1, problem = a->>'problem', updated_at = t where id = (a->>'id')::uuid;
  end if;
  return done('{}');
end $$;

insert into change_kind (kind, handler) values
  ('subscription.put', 'subscription_put'), ('subscription.delete', 'subscription_delete'), ('subscription.pause', 'subscription_pause'), ('subscription.resume', 'subscription_resume'),
  ('subscription.advance', 'subscription_advance'), ('subscription.fail', 'subscription_fail'), ('subscription.bury', 'subscription_bury'), ('subscription.lose', 'subscription_lose'),
  ('dead_letter.replay', 'dead_letters_replay'), ('dead_letter.discard', 'dead_letters_discard'), ('dead_letter.settle', 'dead_letter_settle');
