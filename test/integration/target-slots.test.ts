import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createLog } from "../../src/base/log.ts";
import { TargetSlots } from "../../src/catalog/target-slots.ts";
import { Pool } from "../../src/store/db.ts";
import { takeSlot } from "../../src/store/target-slots.ts";
import { freshDatabase, type TestDatabase } from "../support/postgres.ts";
import { until } from "../support/until.ts";

const LIMIT = 2;
/** As src/catalog/target-slots.ts has it. */
const HOLD_MS = 30_000;
const log = createLog("silent");

describe("slots of connections to a target, when who holds them", () => {
  let store: TestDatabase;
  const pools: Pool[] = [];

  beforeAll(async () => {
    store = await freshDatabase("migrated");
    await until("the server to have run for a while", async () => {
      const [row] = await store.query<{ old: boolean }>("select pg_postmaster_start_time() < clock_timestamp() - interval '10 s' as old");
      return row!.old;
    });
  });
  afterAll(async () => {
    await Promise.all(pools.map((pool) => pool.close().catch(() => {})));
    await store?.drop();
  });

  function poolOf(): Pool {
    const pool = new Pool({ url: store.url, poolSize: 2, statementTimeoutMs: 5000, connectTimeoutMs: 5000, requireSyncStandby: false }, log);
    pools.push(pool);
    return pool;
  }
  /** All of a new target's, by a process that takes them and does no more. */
  async function allTaken(): Promise<{ readonly uid: string; readonly holder: Pool }> {
    const [uid, holder, name] = [randomUUID(), poolOf(), randomUUID()];
    for (let i = 0; i < LIMIT; i++) expect(await takeSlot(holder, uid, name, LIMIT, HOLD_MS)).toBe(i + 1);
    return { uid, holder };
  }
  /** As if nobody had held on to the target's slots for so long. */
  const silentFor = (uid: string, ms: number) =>
    store.query("update target_slot set until = clock_timestamp() + ($2 - $3::integer) * interval '1 ms' where target_uid = $1", [uid, HOLD_MS, ms]);

  it("is dead, are free seconds later, not when their time is over", async () => {
    const { uid, holder } = await allTaken();
    const other = new TargetSlots(poolOf(), log).of(uid, LIMIT);
    await holder.close(); // what the kernel does for a process that was killed
    await until(
      "its sessions to be gone",
      async () => (await store.query("select from target_slot t where target_uid = $1 and not is_dead(t)", [uid])).length === 0,
    );
    expect(await other.tryAcquire()).toBeUndefined();
    await silentFor(uid, 4000);
    expect(await other.tryAcquire()).toBeDefined();
  });

  it("only sleeps, are kept, as its connections are, until their time is over", async () => {
    const { uid } = await allTaken();
    const other = new TargetSlots(poolOf(), log).of(uid, LIMIT);
    await silentFor(uid, 25_000);
    expect(await other.tryAcquire()).toBeUndefined();
    await silentFor(uid, HOLD_MS + 1);
    expect(await other.tryAcquire()).toBeDefined();
  });
});
