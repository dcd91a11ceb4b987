import { afterAll, beforeAll, expect, it } from "vitest";
import { actorOf, type LeaseTarget, leaseWorld, type LeaseWorld, type Replica, startLeaseTarget } from "../support/leases.ts";
import { until } from "../support/until.ts";

const MINUTE = 60_000;
const LEASES = 1000;
const MOST_CONNECTIONS = 5;
const role = "credentials/postgres/many";

let target: LeaseTarget;
let world: LeaseWorld;
let replicas: Replica[];

beforeAll(async () => {
  target = await startLeaseTarget();
  target = { ...target, config: { ...target.config, maxConnections: MOST_CONNECTIONS } };
  world = await leaseWorld(target);
  await world.putRole(role, "db", { ...target.role, scramIterations: 1 });
  replicas = await Promise.all([world.replica(), world.replica(), world.replica()]);
});
afterAll(async () => {
  await world?.close();
  await target?.cluster.stop();
});

/** The most connections of the broker's login that were seen at a time, until told to end. */
function watchConnections(): () => Promise<number> {
  let most = 0;
  let over = false;
  const watching = (async () => {
    while (!over) most = Math.max(most, await target.connections().catch(() => 0));
  })();
  return async () => {
    over = true;
    await watching;
    return most;
  };
}

it(
  "finding 28: a target that was down while 1,000 leases expired sees them all end, by three replicas that share its limit of connections",
  { timeout: 120_000 },
  async () => {
    const seenIssuing = watchConnections();
    const issued = await Promise.all(
      Array.from({ length: LEASES }, (_, i) =>
        replicas[i % replicas.length]!.issuer.issue({ path: role, ttlMs: MINUTE, actor: actorOf(), request: undefined }),
      ),
    );
    expect(await seenIssuing()).toBeLessThanOrEqual(MOST_CONNECTIONS);
    await target.cluster.stop();
    await world.advance(MINUTE);
    for (const replica of replicas) replica.clockwork.start();
    const left = async (): Promise<number> =>
      (await world.database.query<{ n: number }>("select count(*)::int as n from lease where path = $1 and state <> 'REVOKED'", [role]))[0]!.n;
    await until("tries to fail", async () => (await world.database.query("select from lease where attempts > 1 limit 1")).length > 0);
    expect(await left()).toBe(LEASES);

    await target.cluster.restart({});
    const seen = watchConnections();
    await until(
      "every lease to have ended",
      async () => {
        await world.advance(5000); // what waits for its next try
        return (await left()) === 0;
      },
      100_000,
    );
    expect(await seen()).toBeLessThanOrEqual(MOST_CONNECTIONS);
    for (const { lease } of [issued[0]!, issued.at(-1)!]) {
      expect(await target.has(lease.username)).toBe(false);
      expect(await world.events(lease.id)).toEqual(expect.arrayContaining([20, 22]));
    }
    const ends = await world.database.query<{ n: number }>("select count(*)::int as n from change_log where type = 22");
    expect(ends[0]!.n).toBe(LEASES);
  },
);
