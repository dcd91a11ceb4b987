import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { type LeaseState, LIVE_STATES } from "../../src/model/lease.ts";
import { leasePage } from "../../src/store/leases.ts";
import { clientOf } from "../conformance/engine-postgres-setup.ts";
import { actorOf, dies, gate, type LeaseTarget, leaseWorld, type LeaseWorld, type Replica, type ReplicaOptions, startLeaseTarget } from "../support/leases.ts";
import { until } from "../support/until.ts";

const [MINUTE, HOUR] = [60_000, 3_600_000];
const SIZE = 24; // of which a replica draws three ahead
const POOL = { size: SIZE, maxAgeMs: 10 * MINUTE, refillPerSecond: 500 };
const OTHER = "spiffe://acme.test/ns/b/sa/app";

interface Row {
  readonly id: string;
  readonly username: string;
  readonly state: string;
  readonly pooled: boolean;
  readonly end_cause: string | null;
}

let target: LeaseTarget;
let world: LeaseWorld;
let replica: Replica;
let role: string;
let counter = 0;
const others: Replica[] = [];

beforeAll(async () => {
  target = await startLeaseTarget();
  world = await leaseWorld(target);
  replica = await world.replica();
});
afterAll(async () => {
  await world?.close();
  await target?.cluster.stop();
});
afterEach(() => Promise.all(others.splice(0).map((each) => each.close())));
beforeEach(async () => {
  role = `credentials/postgres/drawn/${counter++}`;
  await world.putRole(role, "db", { ...target.role, scramIterations: 1 }, { pool: POOL });
  await replica.pool.look();
});

const rows = (): Promise<Row[]> => world.database.query("select id, username, state, pooled, end_cause from lease where path = $1 order by issued_at", [role]);
const drawn = async (): Promise<Row[]> => (await rows()).filter((row) => row.state === "PENDING");
const issue = (by: Replica, principal?: string, request?: { id: string; hash: string }) =>
  by.issuer.issue({ path: role, ttlMs: HOUR, actor: actorOf(principal), request });

/** Closed when its test is over: it has connections to the target. */
async function another(options: ReplicaOptions = {}): Promise<Replica> {
  const made = await world.replica(options);
  others.push(made);
  return made;
}

/** One that has drawn some ahead, as it does when it issues again and again. */
async function busy(options: ReplicaOptions = {}): Promise<Replica> {
  const made = await another(options);
  await until("some to be drawn ahead", async () => {
    await issue(made);
    await made.drawn.settled();
    return (await drawn()).length === 3;
  });
  return made;
}

const gone = (row: Row) =>
  until("it to be gone", async () => {
    await replica.clockwork.sweep();
    const [now] = (await rows()).filter(({ id }) => id === row.id);
    return now!.state === "REVOKED" && now;
  });

/** Of those that were drawn, the one that was enabled for nothing. */
const onItsWayOut = (ahead: readonly Row[]) =>
  until("one to be on its way out", async () => (await rows()).find(({ id, state }) => state !== "PENDING" && ahead.some((row) => row.id === id)));

it("draws for a role that is issued again and again; they can't log in; the next issues are met with them", async () => {
  await issue(replica);
  expect(await drawn()).toEqual([]);
  const made = await busy();
  const ahead = (await drawn()).map(({ username }) => username);
  for (const username of ahead) expect(await target.canLogin(username)).toBe(false);
  const { lease, password } = await issue(made);
  expect(ahead).toContain(lease.username);
  await (await clientOf(lease.connection, password)).end();
  expect(Math.abs((await target.validUntil(lease.username)) - (lease.expireAt + MINUTE))).toBeLessThan(5000);
  await until("it to be confirmed", async () => !(await replica.lease(lease.id)).enabling);
  expect(await replica.lease(lease.id)).toMatchObject({
    state: "ACTIVE",
    principal: actorOf().principal,
    expireAt: lease.expireAt,
    nextActionAt: lease.expireAt,
    delivered: true,
  });
  expect(await world.events(lease.id)).toEqual([20]);
  expect(await world.actions(lease.id)).toEqual(["lease.pool", "CredentialService/IssueCredential"]);
});

it("gives none twice, whoever else issues", async () => {
  const [one, two] = [await another(), await another()];
  const issued = await Promise.all([one, two].flatMap((by) => Array.from({ length: 10 }, () => issue(by))));
  for (let i = 0; i < 10; i++) issued.push(...(await Promise.all([issue(one), issue(two), issue(one, OTHER)])));
  expect(new Set(issued.map(({ lease }) => lease.username)).size).toBe(50);
  for (const { lease } of issued) expect(await target.canLogin(lease.username)).toBe(true);
});

it("puts back what it does not need when it stops", async () => {
  const made = await busy();
  const ahead = await drawn();
  await made.drawn.stop();
  const now = new Map((await rows()).map((row) => [row.id, row.state]));
  expect(ahead.map(({ id }) => now.get(id))).toEqual(["READY", "READY", "READY"]);
  const { lease } = await issue(made);
  expect(lease.username).toBeDefined();
});

it("what a dead replica had drawn is taken away when its time is over, enabled or not, and was nobody's lease", async () => {
  const made = await busy();
  const ahead = await drawn();
  await target.sql(`alter role ${ahead[0]!.username} login`);
  await world.advance(20_000);
  await replica.clockwork.sweep();
  expect(await drawn()).toHaveLength(3);
  await world.advance(20_000);
  for (const row of ahead) {
    await gone(row);
    expect(await target.has(row.username)).toBe(false);
    expect(await world.events(row.id)).toEqual([]);
  }
  // Who wakes up then gets another, or makes one.
  const { lease, password } = await issue(made);
  expect(ahead.map(({ id }) => id)).not.toContain(lease.id);
  await (await clientOf(lease.connection, password)).end();
});

it("an issue that is refused after its login was enabled takes it away at once, and the role goes without for a while", async () => {
  role += "-quota";
  await world.putRole(role, "db", { ...target.role, scramIterations: 1 }, { pool: POOL, quotas: { maxLeases: undefined, maxLeasesPerPrincipal: 4 } });
  await replica.pool.look();
  const made = await another();
  for (let i = 0; i < 4; i++) {
    await issue(made);
    await made.drawn.settled();
  }
  const ahead = await drawn();
  expect(ahead.length).toBeGreaterThan(0);
  await expect(issue(made)).rejects.toMatchObject({ reason: "LEASE_QUOTA" });
  const spoilt = await onItsWayOut(ahead);
  expect(await gone(spoilt)).toMatchObject({ end_cause: "POOL", pooled: true });
  expect(await target.has(spoilt.username)).toBe(false);
  expect(await world.events(spoilt.id)).toEqual([]);
  // Refused again and again: nothing more is burnt, and others are served.
  for (let i = 0; i < 5; i++) await expect(issue(made)).rejects.toMatchObject({ reason: "LEASE_QUOTA" });
  expect((await rows()).filter((row) => row.pooled && row.state !== "READY" && row.state !== "PENDING").map(({ id }) => id)).toEqual([spoilt.id]);
  expect(ahead.map(({ username }) => username)).not.toContain((await issue(made, OTHER)).lease.username);
});

it.each([
  ["before", "beforeEnable"],
  ["after", "afterEnable"],
] as const)("a worker that dies %s it has enabled a drawn login leaves a lease that is answered, usable, when it is asked for again", async (_when, fault) => {
  let dead = false;
  const made = await busy({ faults: { [fault]: async () => (dead ? dies() : undefined) } });
  dead = true;
  const ahead = (await drawn()).map(({ id }) => id);
  const request = { id: randomUUID(), hash: "h" };
  await expect(issue(made, undefined, request)).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE" });
  const { lease, password, recorded } = await issue(replica, undefined, request);
  expect(recorded).toBe(false);
  expect(ahead).toContain(lease.id);
  await (await clientOf(lease.connection, password)).end();
  expect(await replica.lease(lease.id)).toMatchObject({ state: "ACTIVE", enabling: false, delivered: true, nextActionAt: lease.expireAt });
  expect(await world.events(lease.id)).toEqual([20]);
});

it("who asks for a lease again is answered without the target, though a login was drawn for it; others go on with drawn ones", async () => {
  const step = gate();
  let stuck = false;
  const made = await busy({ faults: { beforeEnable: async () => (stuck ? step.pass() : undefined) } });
  const request = { id: randomUUID(), hash: "h" };
  const first = await issue(made, undefined, request);
  await until("it to be confirmed", async () => !(await replica.lease(first.lease.id)).enabling);
  await made.drawn.settled();
  const ahead = await drawn();
  stuck = true;
  expect((await issue(made, undefined, request)).lease.id).toBe(first.lease.id);
  step.open();
  const spoilt = await onItsWayOut(ahead);
  expect(await gone(spoilt)).toMatchObject({ end_cause: "POOL" });
  stuck = false;
  expect(ahead.map(({ id }) => id)).toContain((await issue(made)).lease.id);
});

it("one whose draw ran out before the target came to it is enabled as the lease it has become", async () => {
  let late = 0;
  const tooLate = () => new LeaseholdError("TARGET_UNAVAILABLE", "too late", { metadata: { problem: "deadline_passed" } });
  const made = await busy({ faults: { beforeEnable: async () => (late-- > 0 ? Promise.reject(tooLate()) : undefined) } });
  const ahead = (await drawn()).map(({ id }) => id);
  late = 1;
  const { lease, password } = await issue(made);
  expect(ahead).toContain(lease.id);
  await (await clientOf(lease.connection, password)).end();
});

it.each([true, false])(
  "one whose commit's answer is lost is a lease that was not delivered: answered when it is asked for again (%s), and else gone after a minute",
  async (again) => {
    const made = await busy();
    const ahead = (await drawn()).map(({ id }) => id);
    const commit = made.committer.commit.bind(made.committer);
    made.committer.commit = async (command, when) => {
      const outcome = await commit(command, when);
      if (command.kind === "lease.take") throw new LeaseholdError("STORE_UNAVAILABLE", "the answer was lost");
      return outcome;
    };
    const request = { id: randomUUID(), hash: "h" };
    await expect(issue(made, undefined, request)).rejects.toMatchObject({ reason: "STORE_UNAVAILABLE" });
    const row = (await rows()).find(({ id, state }) => state === "ACTIVE" && ahead.includes(id))!;
    await until("it is known not to be delivered", async () => !(await replica.lease(row.id)).delivered);
    if (again) {
      const { lease, password } = await issue(replica, undefined, request);
      expect(lease.id).toBe(row.id);
      await (await clientOf(lease.connection, password)).end();
    } else {
      await world.advance(61_000);
      expect(await gone(row)).toMatchObject({ end_cause: "UNDELIVERED" });
      expect(await target.has(row.username)).toBe(false);
    }
  },
);

it("of a role that was changed is not given out; it goes back, and then with the rest of the old pool", async () => {
  const made = await busy();
  const old = await rows();
  await world.putRole(role, "db", { ...target.role, scramIterations: 2 }, { pool: POOL });
  const { lease } = await issue(made);
  expect(old.map(({ id }) => id)).not.toContain(lease.id);
  await made.drawn.stop();
  await until("the old pool is gone", async () => {
    await replica.pool.look();
    await replica.clockwork.sweep();
    return (await rows()).every(({ id, pooled, state }) => !pooled || state === "REVOKED" || !old.some((row) => row.id === id));
  });
});

it("what the pool holds is no lease that is listed, unless READY is asked for", async () => {
  await busy();
  const list = async (states: readonly LeaseState[]) => {
    const filter = { range: { from: role, to: `${role}/` }, principal: "", states, stalled: false, allowed: [{ from: role, to: `${role}/` }], viewer: "" };
    return (await leasePage(replica.db, filter, undefined, 1000, 1000)).leases;
  };
  expect((await list(LIVE_STATES)).filter(({ principal }) => principal === "")).toEqual([]);
  expect(await list(LIVE_STATES)).not.toEqual([]);
  expect((await list(["READY", "PENDING"])).filter(({ state }) => state === "PENDING")).toHaveLength(3);
});

it("one that is revoked by hand while it is drawn is gone, and is not given out", async () => {
  const made = await busy();
  const [row, ...others] = await drawn();
  expect((await replica.revoker.revoke(row!.id, actorOf(), undefined, 10_000)).lease.state).toBe("REVOKED");
  expect(await target.has(row!.username)).toBe(false);
  for (const _ of [row, ...others]) expect((await issue(made)).lease.username).not.toBe(row!.username);
});

it("while it is drawn the ledger knows the latest VALID UNTIL it may have; put back, it has the pool's end again", async () => {
  const ends = () =>
    world.database.query<{ state: string; left: number }>(
      "select state, (extract(epoch from expire_at - leasehold_now()) * 1000)::float8 as left from lease where path = $1 and pooled",
      [role],
    );
  const made = await busy();
  const ahead = (await ends()).filter(({ state }) => state === "PENDING");
  expect(ahead).toHaveLength(3);
  for (const { left } of ahead) expect(left).toBeGreaterThan(4 * HOUR); // max_ttl
  await made.drawn.stop();
  for (const { left } of await ends()) expect(left).toBeLessThanOrEqual(POOL.maxAgeMs);
});

it("a worker that is frozen before the target until the lease was revoked enables nothing", async () => {
  const step = gate();
  let frozen = false;
  const made = await busy({ faults: { beforeEnable: async () => (frozen ? step.pass() : undefined) } });
  frozen = true;
  const ahead = await drawn();
  const answer = issue(made);
  answer.catch(() => {});
  await step.reached;
  const row = await until("the commit", async () => (await rows()).find(({ id, state }) => state === "ACTIVE" && ahead.some((one) => one.id === id)));
  expect((await replica.revoker.revoke(row.id, actorOf(), undefined, 10_000)).lease.state).toBe("REVOKED");
  step.open();
  await expect(answer).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "login_missing" } });
  expect(await target.has(row.username)).toBe(false);
});

it("one whose row somebody else has moved meanwhile is not given out", async () => {
  const made = await busy();
  const ahead = await drawn();
  for (const { id } of ahead) await replica.revoker.mark({ id, path: role }, actorOf(), "POOL");
  const { lease, password } = await issue(made);
  expect(ahead.map(({ id }) => id)).not.toContain(lease.id);
  await (await clientOf(lease.connection, password)).end();
  for (const row of ahead) {
    await gone(row);
    expect(await target.has(row.username)).toBe(false);
  }
});
