-- A scan that finds what it found before changes nothing but when it was last seen: no record, or an orphan that nobody looks at would fill the audit, one record an hour.

-- As in 0009, but for the record. Answers how long ago it was first seen.
create or replace function finding_raise(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  was finding%rowtype;
  f finding%rowtype;
  event jsonb;
begin
  select * into was from finding where target_uid = (a->>'target_uid')::uuid and kind = a->>'kind' and name = a->>'name' and oid = a->>'oid' and state = 'OPEN';
  insert into finding (id, namespace_id, kind, target_uid, name, oid, first_seen, last_seen)
    values ((a->>'id')::uuid, 1, a->>'kind', (a->>'target_uid')::uuid, a->>'name', a->>'oid', t, t)
    on conflict (target_uid, kind, name, oid) where state = 'OPEN' do update set last_seen = t returning * into f;
  event := case when (was.id is null or is_trial(was)) and not is_trial(f) then jsonb_build_object('type', case a->>'kind' when 'ORPHAN' then 25 else 26 end) end;
  return done(jsonb_build_object('id', f.id, 'age_ms', floor(extract(epoch from t - f.first_seen) * 1000)::bigint), event)
    || case when was.id is not null and event is null then '{"unrecorded":true}'::jsonb else '{}' end;
end $$;
