import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { IssueCredentialResponse } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { Lease_State as State } from "../../src/gen/leasehold/v1/lease_pb.ts";
import { LeaseService } from "../../src/gen/leasehold/v1/lease_service_pb.ts";
import { Operation_State } from "../../src/gen/leasehold/v1/operation_pb.ts";
import { OperationService } from "../../src/gen/leasehold/v1/operation_service_pb.ts";
import { type Broker, hold, inState, type LeaseRow, leaseWorld, type LeaseWorld, logins, refusal, targetCluster, works } from "../support/lease-world.ts";
import { freshCluster, type TestCluster } from "../support/postgres.ts";
import { freshRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

const ISSUED = 20;
const EXPIRED = 22;
const REVOKED = 23;
const STALLED = 24;
/** For how long a worker has a lease to itself, and a replica an operation. */
const CLAIM_MS = 60_000;
/** After so long no creation can happen any more: its deadline and the longest statement. */
const GIVEN_UP_MS = 31_000;

let world: LeaseWorld;
let store: TestCluster;
let target: TestCluster;
let healthy: TestCluster;
let redis: TestRedis;
let broker: Broker;
let role: string;
let healthyRole: string;

beforeAll(async () => {
  [store, target, healthy, redis] = await Promise.all([freshCluster(), targetCluster(), targetCluster(), freshRedis()]);
  world = await leaseWorld({ redisUrl: redis.url }, store);
  broker = await world.start();
  role = await world.addTarget(broker, "sick", target);
  healthyRole = await world.addTarget(broker, "healthy", healthy);
});
afterAll(async () => {
  await world?.close();
  await Promise.all([store?.remove(), target?.remove(), healthy?.remove(), redis?.stop()]);
});

afterEach(() => world.shiftClock(0));

/** Lets the ledger's clock run over the pauses between tries until a lease is there. */
async function pump(path: string, there: (row: LeaseRow) => boolean): Promise<void> {
  await until(`${path} to get on`, async () => {
    const row = await world.row(path);
    if (there(row)) return true;
    if (row.next_action_at !== null) await world.shiftClock(Math.max(row.next_action_at.getTime() - Date.now() + 1, 0));
    return false;
  });
}

/** The broker's circuit to the target is closed again. */
async function reachable(): Promise<void> {
  const issued = await until("the target to be reached", () =>
    broker
      .as("app")
      .issue(role)
      .catch(() => undefined),
  );
  await broker.as("app").revoke(issued.lease!.path);
}

function issueMany(by: Broker, count: number, ttlMs: number, path = role): Promise<IssueCredentialResponse[]> {
  return Promise.all(Array.from({ length: count }, () => by.as("app").issue(path, ttlMs)));
}

async function endedOnce(issued: readonly IssueCredentialResponse[], end: number): Promise<void> {
  for (const one of issued) {
    await inState(world, one.lease!.path, "REVOKED");
    const events = await world.events(one.lease!.path);
    expect(events.filter((type) => type !== STALLED)).toEqual([ISSUED, end]);
  }
}

test("the store is killed while leases expire: every one is revoked once it is back, exactly once, and the broker serves again", async () => {
  const issued = await issueMany(broker, 8, 1000);
  await store.kill();
  expect(["STORE_UNAVAILABLE", "AUDIT_UNAVAILABLE"]).toContain((await refusal(broker.as("app").issue(role))).reason);
  await store.start();
  await endedOnce(issued, EXPIRED);
  // The refused call may have come as far as PENDING before the store's last connection died: then its login goes once no creation can come any more.
  await world.shiftClock(GIVEN_UP_MS);
  await until("no login to be left", async () => (await logins(target)).length === 0);
  await world.shiftClock(0);
  const next = await until("the broker to serve again", () =>
    broker
      .as("app")
      .issue(role, 2000)
      .catch(() => undefined),
  );
  expect(await works(next)).toBe(true);
  await endedOnce([next], EXPIRED);
});

test("lesson 6: a target that is down is tried for ever, said to be stalled after six tries, and holds up no other target; back, its leases end", async () => {
  const [[issued], [other]] = await Promise.all([issueMany(broker, 1, 1000), issueMany(broker, 1, 60_000, healthyRole)]);
  const { path } = issued!.lease!;
  await target.kill();
  try {
    await pump(path, (row) => row.stalled);
    expect(await world.row(path)).toMatchObject({ state: "REVOKING", stalled: true });
    expect((await world.events(path)).filter((type) => type === STALLED)).toEqual([STALLED]);
    const { leases } = await broker.as("admin").call(LeaseService.method.listLeases, { stalled: true });
    expect(leases.map((lease) => lease.path)).toEqual([path]);
    expect(leases[0]).toMatchObject({ state: State.REVOKING, revocation: { stalled: true, problem: expect.stringMatching(/./) as string } });
    // Another target's leases end meanwhile, and new ones are made.
    await pump(other!.lease!.path, (row) => row.state === "REVOKED");
    await endedOnce([other!], EXPIRED);
    const more = await broker.as("app").issue(healthyRole);
    expect(await works(more)).toBe(true);
    expect(await broker.as("app").revoke(more.lease!.path)).toMatchObject({ state: State.REVOKED });
  } finally {
    await target.start();
  }
  await pump(path, (row) => row.state === "REVOKED");
  await endedOnce([issued!], EXPIRED);
  expect(await world.row(path)).toMatchObject({ stalled: false });
  expect(await works(issued!)).toBe(false);
  await reachable();
});

test("a target that restarts while its leases expire loses none", async () => {
  const issued = await issueMany(broker, 6, 1000);
  await target.stop();
  await until("a try to fail", async () => (await world.row(issued[0]!.lease!.path)).attempts > 0);
  await target.start();
  for (const one of issued) await pump(one.lease!.path, (row) => row.state === "REVOKED");
  await endedOnce(issued, EXPIRED);
  expect(await logins(target)).toEqual([]);
  await reachable();
});

test("a target that is back serves clients again, though the schedule has nothing to do there that would find out", async () => {
  await until(
    "no lease to be left",
    async () => (await world.store.query("select from lease where state in ('PENDING', 'ACTIVE', 'REVOKING') and path = $1", [role])).length === 0,
  );
  await target.kill();
  await until("the circuit to open", async () => (await refusal(broker.as("app").issue(role))).metadata["problem"] === "circuit_open");
  await target.start();
  await world.store.query("update lease set next_action_at = leasehold_now() + interval '1 hour' where state = 'PENDING'");
  await reachable();
  await world.store.query("update lease set next_action_at = deadline_at where state = 'PENDING'");
});

test("Redis dies, comes back empty and dies again: every lease ends all the same, once", async () => {
  for (const harm of [() => redis.kill(), () => redis.restart(), () => redis.wipe()]) {
    const issued = await issueMany(broker, 4, 1000);
    await harm();
    await endedOnce(issued, EXPIRED);
  }
});

test("two replicas: what one was ending when it was killed, the other ends; each lease once", async () => {
  const first = await world.spawn();
  const issued = [...(await issueMany(first, 6, 2000)), ...(await issueMany(broker, 6, 2000))];
  const held = await hold(target);
  await until("the replicas to be at it", async () => {
    const rows = await Promise.all(issued.map((one) => world.row(one.lease!.path)));
    return rows.every((row) => row.state === "REVOKING" || row.expire_at.getTime() < Date.now());
  });
  await first.program.killTree();
  await held.release();
  await world.shiftClock(CLAIM_MS + 1000);
  await endedOnce(issued, EXPIRED);
  expect(await logins(target)).toEqual([]);
});

test("finding 8: a replica killed while its target creates leaves no login behind", async () => {
  const first = await world.spawn();
  const [held, before] = [await hold(target), new Date()];
  const calls = Array.from({ length: 3 }, () =>
    first
      .as("app")
      .issue(role)
      .catch(() => undefined),
  );
  const pending = await until("the leases to be pending", async () => {
    const rows = await world.store.query<{ id: string }>("select id from lease where state = 'PENDING' and issued_at >= $1", [before]);
    return rows.length === 3 ? rows : undefined;
  });
  const waiting = "select count(*)::int as n from pg_stat_activity where wait_event_type = 'Lock' and query ilike '%create_logins%'";
  await until("the target to be creating", async () => (await target.query<{ n: number }>(waiting))[0]!.n > 0);
  await first.program.killTree();
  await Promise.all(calls);
  await held.release();
  await until(
    "the statement to have ended",
    async () =>
      (
        await target.query<{ n: number }>(
          "select count(*)::int as n from pg_stat_activity where query ilike '%create_logins%' and state = 'active' and pid <> pg_backend_pid()",
        )
      )[0]!.n === 0,
  );
  await world.shiftClock(31_000);
  await until("nothing to be pending", async () => {
    const rows = await world.store.query<{ state: string }>("select state from lease where id = any ($1)", [pending.map((row) => row.id)]);
    return rows.every((row) => row.state === "REVOKED" || row.state === "ROLLED_BACK");
  });
  expect(await logins(target)).toEqual([]);
});

test("lesson 17: the revocation of a prefix goes on in another replica after a kill", async () => {
  const first = await world.spawn();
  const issued = await issueMany(first, 20, 600_000);
  const held = await hold(target);
  const { operation } = await first.as("admin").call(LeaseService.method.revokeLeases, { prefix: role });
  await until("the leases to be marked", async () => (await world.row(issued.at(-1)!.lease!.path)).state === "REVOKING");
  const during = await broker.as("admin").call(OperationService.method.getOperation, { path: operation!.path });
  expect(during.operation).toMatchObject({ state: Operation_State.RUNNING });
  await first.program.killTree();
  await held.release();
  // As if the dead replica's half minute had passed.
  await world.store.query("update operation set claimed_until = null");
  await world.shiftClock(CLAIM_MS + 1000);
  const over = await until("the operation to end", async () => {
    const { operation: now } = await broker.as("admin").call(OperationService.method.getOperation, { path: operation!.path });
    return now!.state === Operation_State.RUNNING ? undefined : now!;
  });
  expect(over).toMatchObject({ state: Operation_State.SUCCEEDED, done: 20n, total: 20n });
  await endedOnce(issued, REVOKED);
});

test("lesson 17: a cancelled revocation of a prefix stops; what was marked still ends", async () => {
  const issued = await issueMany(broker, 4, 600_000);
  const held = await hold(target);
  const { operation } = await broker.as("admin").call(LeaseService.method.revokeLeases, { prefix: role });
  await until("the leases to be marked", async () => (await world.row(issued.at(-1)!.lease!.path)).state === "REVOKING");
  const { operation: cancelled } = await broker.as("admin").call(OperationService.method.cancelOperation, { path: operation!.path });
  expect(cancelled).toMatchObject({ state: Operation_State.CANCELLED });
  await held.release();
  await world.shiftClock(CLAIM_MS + 1000);
  await endedOnce(issued, REVOKED);
  const { operation: after } = await broker.as("admin").call(OperationService.method.getOperation, { path: operation!.path });
  expect(after).toMatchObject({ state: Operation_State.CANCELLED });
});
