-- A target that lost its tail in a failover may have undone a renewal: the login ends before its lease. And a login may have lost the right to log in, by that or by an administrator's hand. A scan sees both.

-- args: id, generation. The login's VALID UNTIL lies before the lease's end: as if the renewal had only just been committed, which the schedule then brings to the target. STALE: the lease has moved on.
create function lease_renew_again(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
begin
  update lease set renewing_to = expire_at, generation = generation + 1, next_action_at = t
    where id = (c->'args'->>'id')::uuid and generation = (c->'args'->>'generation')::bigint
      and state = 'ACTIVE' and delivered and not enabling and renewing_to is null and expire_at > t;
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

-- As in 0009, with LOGIN_DISABLED.
create or replace function findings_settle(c jsonb, t timestamptz) returns jsonb language plpgsql as $$
begin
  delete from finding f where target_uid = (c->'args'->>'target_uid')::uuid and state = 'OPEN' and last_seen < (c->'args'->>'before')::timestamptz and is_trial(f);
  update finding set state = 'RESOLVED', resolution = case kind when 'ORPHAN' then 'gone' when 'LOGIN_DISABLED' then 'enabled or ended' else 'lease ended' end, last_seen = t
    where target_uid = (c->'args'->>'target_uid')::uuid and state = 'OPEN' and kind in ('ORPHAN', 'LEASE_WITHOUT_LOGIN', 'LOGIN_DISABLED')
      and last_seen < (c->'args'->>'before')::timestamptz;
  if not found then return refuse('STALE'); end if;
  return done('{}');
end $$;

insert into change_kind (kind, handler) values ('lease.renew_again', 'lease_renew_again');
