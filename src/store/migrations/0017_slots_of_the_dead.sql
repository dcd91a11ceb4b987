-- The session of the store that last held on to a slot of a connection to a target: when it is gone, and nobody has held on for a moment, its process is dead, and the slot free at once instead of when its
-- time is over. A process that only sleeps keeps its sessions, and so its slots, as it keeps its connections.
alter table target_slot
  add column backend integer,
  add column backend_start timestamptz;

-- Whether the process that held a slot, some seconds ago, is dead. Just after a start of the server every session is gone, and says nothing.
create function is_dead(t target_slot) returns boolean language sql stable as $$
  select pg_postmaster_start_time() < clock_timestamp() - interval '10 s'
    and not exists (select from pg_stat_get_activity(t.backend) s where s.backend_start is null or s.backend_start = t.backend_start)
$$;
