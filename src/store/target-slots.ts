import type { Db } from "./db.ts";

/** So long ago a process must have held on to its slots the last time before somebody asks whether it is dead: it does so every second. */
const SILENT_MS = 3000;

/** A slot's time is that of the database, and not the clock that tests move: it says whether a process is there. So does the session it was last held on to by (migration 0017). */
const TAKE = {
  name: "slot_take",
  text: `insert into target_slot as mine (target_uid, slot, holder, until, backend, backend_start)
           select $1, s, $2, clock_timestamp() + $4 * interval '1 ms', b.pid, b.backend_start from generate_series(1, $3::integer) s, pg_stat_get_activity(pg_backend_pid()) b
             where not exists (select from target_slot t where t.target_uid = $1 and t.slot = s and t.until > clock_timestamp() and not (t.until < clock_timestamp() + $5 * interval '1 ms' and is_dead(t))) order by s limit 1
         on conflict (target_uid, slot) do update set holder = excluded.holder, until = excluded.until, backend = excluded.backend, backend_start = excluded.backend_start
           where mine.until <= clock_timestamp() or (mine.until < clock_timestamp() + $5 * interval '1 ms' and is_dead(mine))
         returning slot`,
};
const WANT = {
  name: "slot_want",
  text: `insert into target_slot_wanted (target_uid, until) values ($1, clock_timestamp() + $2 * interval '1 ms')
         on conflict (target_uid) do update set until = excluded.until`,
};
const KEEP = {
  name: "slot_keep",
  text: `update target_slot t set until = clock_timestamp() + $2 * interval '1 ms', backend = b.pid, backend_start = b.backend_start
           from pg_stat_get_activity(pg_backend_pid()) b where t.holder = $1`,
};
const WANTED = {
  name: "slot_wanted",
  text: `select w.target_uid as uid, (select count(distinct s.holder) from target_slot s where s.target_uid = w.target_uid and s.until > clock_timestamp()) as holders
           from target_slot_wanted w where w.until > clock_timestamp()`,
};
const FREE = { name: "slot_free", text: "delete from target_slot where target_uid = $1 and slot = $2 and holder = $3" };

/** Takes one of a target's `limit` slots for `forMs`; undefined when none is free, or another was faster. A dead process's is free SILENT_MS after it was last held on to. */
export async function takeSlot(db: Db, targetUid: string, holder: string, limit: number, forMs: number): Promise<number | undefined> {
  const [row] = await db.query<{ slot: number }>(TAKE, [targetUid, holder, limit, forMs, forMs - SILENT_MS]);
  return row?.slot;
}

export async function freeSlot(db: Db, targetUid: string, slot: number, holder: string): Promise<void> {
  await db.query(FREE, [targetUid, slot, holder]);
}

/** Says for `forMs` that a slot of this target is waited for. */
export async function wantSlot(db: Db, targetUid: string, forMs: number): Promise<void> {
  await db.query(WANT, [targetUid, forMs]);
}

/** Holds on to all slots of a holder for `forMs` more; answers the targets of which a slot is waited for, and how many holders share each. */
export async function keepSlots(db: Db, holder: string, forMs: number): Promise<{ readonly uid: string; readonly holders: number }[]> {
  await db.query(KEEP, [holder, forMs]);
  return db.query(WANTED);
}
