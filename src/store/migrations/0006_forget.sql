-- What an operator gives up: a lease whose target is gone, and a target with all its leases.

-- args: id; `live`: whatever its state, since its target is given up, else only a REVOKING one whose revocation has failed. Whether the login still exists is not known: end_cause FORGOTTEN says so.
create function lease_forget(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
declare
  a jsonb := c->'args';
  l lease%rowtype;
begin
  select * into l from lease where id = (a->>'id')::uuid for update;
  if not found then return refuse('LEASE_NOT_FOUND'); end if;
  if not l.live then return done(jsonb_build_object('state', l.state)); end if;
  if not coalesce((a->>'live')::boolean, false) and not (l.state = 'REVOKING' and l.attempts > 0) then
    return refuse('LEASE_NOT_FORGETTABLE', jsonb_build_object('state', l.state));
  end if;
  update lease set state = 'REVOKED', generation = generation + 1, end_cause = 'FORGOTTEN', ended_at = t, sealed = null, key_id = null, renewing_to = null, stalled = false, next_action_at = null
    where id = l.id;
  return done(jsonb_build_object('state', 'REVOKED'),
    case when not l.pooled then jsonb_build_object('type', 23, 'lease_id', l.id, 'principal', l.principal, 'expire_at', iso(l.expire_at), 'removed', true) end);
end $$;
insert into change_kind (kind, handler) values ('lease.forget', 'lease_forget');

-- Leases that have ended hold a target no longer; nothing can look at it for them once it is gone.
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
  delete from witness_mark where target_uid = x.uid;
  update finding set state = 'RESOLVED', resolution = 'target deleted', last_seen = t where target_uid = x.uid and state = 'OPEN';
  delete from target where uid = x.uid;
  return done('{}', '{"type":41,"removed":true}');
end $$;
