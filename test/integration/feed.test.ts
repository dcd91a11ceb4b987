import { afterAll, afterEach, beforeAll, expect, it, vi } from "vitest";
import { createLog } from "../../src/base/log.ts";
import { type Db, Pool } from "../../src/store/db.ts";
import { LedgerClock } from "../../src/store/ledger-clock.ts";
import { Feed } from "../../src/watch/feed.ts";
import { gate } from "../support/leases.ts";
import { freshDatabase, type TestDatabase } from "../support/postgres.ts";
import { until } from "../support/until.ts";

const log = createLog("silent");
let database: TestDatabase;
let db: Pool;

beforeAll(async () => {
  database = await freshDatabase();
  await database.query(
    "insert into store_state (instance, epoch, system_identifier, timeline) select 'feed', 1, system_identifier::text, 1 from pg_control_system() on conflict do nothing",
  );
  db = new Pool({ url: database.url, poolSize: 2, statementTimeoutMs: 5000, connectTimeoutMs: 3000, requireSyncStandby: false }, log);
});
afterEach(() => void vi.useRealTimers());
afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const change = (revision: number) =>
  database.query(
    "insert into change_log (revision, namespace_id, at, type, path, version, versions, principal, removed, decides_reads) values ($1, 1, leasehold_now(), 20, 'credentials/postgres/a/ro', 0, '{}', '', false, false)",
    [revision],
  );

it("a look promised for later is not lost to one for an older revision that comes first, while one is under way", async () => {
  vi.useFakeTimers({ toFake: ["setInterval"] }); // no poll
  await change(1);
  const held = gate();
  let holds = false;
  const slow: Db = {
    query: async (...args: Parameters<Db["query"]>) => {
      const rows = await db.query(...args);
      if (holds) await held.pass();
      return rows as never;
    },
  };
  const feed = new Feed(slow, new LedgerClock(), [], log);
  await feed.start();
  expect(feed.applied).toBe(1);
  holds = true;
  await change(2);
  feed.nudge(2);
  await held.reached; // it has seen 2, and is on its way
  holds = false;
  await change(3);
  feed.nudgeSoon(3);
  feed.nudge(2);
  held.open();
  await until("it has seen 3", () => feed.applied === 3);
  await feed.stop();
});
