import { randomUUID } from "node:crypto";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CallError } from "../../src/client/errors.ts";
import type { IssueCredentialResponse } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { OperatorService } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { type Broker, dataOf, idOf, leaseWorld, type LeaseWorld, logins, targetCluster, works } from "../support/lease-world.ts";
import { freshCluster, type TestCluster } from "../support/postgres.ts";
import { freshRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

const RESTARTS = 5;
const WORKERS = 12;
/** Leases between two restarts, at least. */
const BETWEEN = 25;
const LONG_MS = 600_000;
/** After so long no creation can happen any more, and what was left PENDING is taken back. */
const GIVEN_UP_MS = 31_000;
const [ISSUED, EXPIRED, REVOKED] = [20, 22, 23];

/** One intent to have a credential, and what the test knows of it from answers alone. */
interface Known {
  readonly requestId: string;
  readonly role: string;
  readonly ttlMs: number;
  /** Undefined: the broker has said that this request's lease has ended. */
  issued: IssueCredentialResponse | undefined;
  /** The latest end that a renewal was answered with. */
  promisedUntil: number;
  revokeAsked: boolean;
  revokeAnswered: boolean;
}

interface Row {
  readonly id: string;
  readonly state: string;
  readonly username: string;
  readonly request_id: string | null;
  readonly end_cause: string | null;
  readonly expire_at: Date;
  readonly shelf: boolean;
  readonly settled: boolean;
}

let store: TestCluster;
let target: TestCluster;
let redis: TestRedis;
let world: LeaseWorld;
let replicas: Broker[];
let roles: string[];
const known: Known[] = [];

beforeAll(async () => {
  [store, target, redis] = await Promise.all([freshCluster(), targetCluster(), freshRedis()]);
  world = await leaseWorld({ redisUrl: redis.url }, store);
  replicas = [await world.start(), await world.start()];
  const role = await world.addTarget(replicas[0]!, "main", target);
  roles = [role, await world.addRole(replicas[0]!, "main/pooled", "main", { pool: { size: 10, refillPerSecond: 50 } })];
});
afterAll(async () => {
  await world?.close();
  await Promise.all([store?.remove(), target?.remove(), redis?.stop()]);
});

function rows(): Promise<Row[]> {
  return world.store.query<Row>(
    "select id, state, username, request_id, end_cause, expire_at, shelf, renewing_to is null and not enabling and delivered as settled from lease order by issued_at",
  );
}

function oneOf<T>(values: readonly T[]): T | undefined {
  return values[Math.floor(Math.random() * values.length)];
}

/** Asks until there is an answer, each time any replica, as a client does that must not ask for two. */
async function issue(intent: Known): Promise<void> {
  for (;;) {
    try {
      const issued = await oneOf(replicas)!.as("app").issue(intent.role, intent.ttlMs, intent.requestId);
      // The same request has the same lease, and the same password.
      if (intent.issued !== undefined) {
        expect(issued.lease!.path).toBe(intent.issued.lease!.path);
        expect(dataOf(issued)).toEqual(dataOf(intent.issued));
      } else {
        intent.issued = issued;
        intent.promisedUntil = timestampMs(issued.lease!.expireTime!);
      }
      return;
    } catch (error) {
      if (!(error instanceof CallError) || error.reason === "INTERNAL" || error.reason === "CONFLICT") throw error;
      if (error.reason === "LEASE_ENDED") return;
      await new Promise(setImmediate);
    }
  }
}

/** Once, with whatever comes of it; answers whether it was done. */
async function attempt<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (!(error instanceof CallError) || error.reason === "INTERNAL") throw error;
    return undefined;
  }
}

async function act(): Promise<void> {
  const dice = Math.random();
  const lease = dice < 0.5 ? undefined : oneOf(known.filter((one) => one.issued !== undefined));
  if (lease === undefined) {
    const intent: Known = {
      requestId: randomUUID(),
      role: oneOf(roles)!,
      ttlMs: oneOf([1500, LONG_MS / 2, LONG_MS / 2])!,
      issued: undefined,
      promisedUntil: 0,
      revokeAsked: false,
      revokeAnswered: false,
    };
    known.push(intent);
    return issue(intent);
  }
  if (dice < 0.6) return issue(lease);
  const { path } = lease.issued!.lease!;
  const app = oneOf(replicas)!.as("app");
  if (dice < 0.85) {
    const renewed = await attempt(app.renew(path, LONG_MS / 2));
    if (renewed !== undefined) lease.promisedUntil = Math.max(lease.promisedUntil, timestampMs(renewed.expireTime!));
    return;
  }
  lease.revokeAsked = true;
  if ((await attempt(app.revoke(path))) !== undefined) lease.revokeAnswered = true;
}

/** Workers that go on until told to end. */
function load(): () => Promise<void> {
  let over = false;
  const workers = Promise.all(
    Array.from({ length: WORKERS }, async () => {
      while (!over) await act();
    }),
  );
  return async () => {
    over = true;
    await workers;
  };
}

test(
  `the store is killed and started again ${RESTARTS} times under load: each request has one lease, what was answered stands, and nothing ended early`,
  { timeout: 240_000 },
  async () => {
    const end = load();
    const answered = (): number => known.filter((one) => one.issued !== undefined).length;
    for (let i = 0; i < RESTARTS; i++) {
      const before = answered();
      await until("leases to be issued", () => answered() >= before + BETWEEN, 60_000);
      await store.kill();
      await store.start();
    }
    const before = answered();
    await until("leases to be issued again", () => answered() >= before + BETWEEN, 60_000);
    const ended = end();
    // Who asked for what was left PENDING is told so once it was taken back.
    await world.shiftClock(GIVEN_UP_MS);
    await ended;
    const live = (row: Row): boolean => ["PENDING", "READY", "ACTIVE", "REVOKING"].includes(row.state);
    await until(
      "nothing to be under way",
      async () => (await rows()).every((row) => row.shelf || !live(row) || (row.state === "ACTIVE" && row.settled)),
      60_000,
    );

    // No double issue, and no lease that nobody asked for.
    const all = await rows();
    const leases = all.filter((row) => row.request_id !== null);
    expect(leases.map((row) => row.request_id).toSorted()).toEqual(known.map((one) => one.requestId).toSorted());
    const byRequest = new Map(leases.map((row) => [row.request_id!, row]));

    // No lost lease: it is there with its login, unless its time has come or somebody asked for its end.
    const there = await target.query<{ name: string; until: Date }>("select rolname as name, rolvaliduntil as until from pg_roles where rolcanlogin");
    const standing = known.filter((one) => one.issued !== undefined && !one.revokeAsked && one.ttlMs !== 1500);
    expect(standing.length).toBeGreaterThan(0);
    for (const one of standing) {
      const row = byRequest.get(one.requestId)!;
      expect(row, row.id).toMatchObject({ id: idOf(one.issued!.lease!.path), state: "ACTIVE" });
      expect(row.expire_at.getTime()).toBeGreaterThanOrEqual(one.promisedUntil);
      const login = there.find(({ name }) => name === row.username);
      expect(login, `login of ${row.id}`).toBeDefined();
      expect(login!.until.getTime()).toBeGreaterThanOrEqual(one.promisedUntil);
      expect(await works(one.issued!), row.id).toBe(true);
    }
    for (const one of known.filter(({ revokeAnswered }) => revokeAnswered)) expect(byRequest.get(one.requestId)!.state, one.requestId).toBe("REVOKED");

    // No login without its lease. (The listing comes first: what the pool makes meanwhile has its row before.)
    const names = await logins(target);
    const accounted = new Set((await rows()).filter(live).map((row) => row.username));
    expect(names.filter((name) => !accounted.has(name))).toEqual([]);

    // Everything ends when its time has come, once.
    await replicas[0]!.as("admin").call(OperatorService.method.deleteRole, { path: roles[1]! });
    await world.shiftClock(1_000_000);
    await until("every lease to have ended", async () => !(await rows()).some(live), 60_000);
    expect(await logins(target)).toEqual([]);
    const events = await world.store.query<{ lease_id: string; type: number; at: Date }>(
      "select lease_id, type, at from change_log where lease_id is not null order by revision",
    );
    const final = new Map((await rows()).map((row) => [row.request_id, row]));
    for (const one of known) {
      const row = final.get(one.requestId)!;
      const own = events.filter((event) => event.lease_id === row.id);
      const ends = own.filter(({ type }) => type === EXPIRED || type === REVOKED);
      if (row.state === "REVOKED" && own.length > 0) expect(ends.length, row.id).toBe(1);
      expect(own.filter(({ type }) => type === ISSUED).length, row.id).toBeLessThanOrEqual(1);
      if (one.issued !== undefined) expect(own[0]?.type, row.id).toBe(ISSUED);
      if (row.end_cause === "EXPIRED") {
        expect(row.expire_at.getTime()).toBeGreaterThanOrEqual(one.promisedUntil);
        expect(ends[0]!.at.getTime()).toBeGreaterThanOrEqual(row.expire_at.getTime());
      }
      if (row.end_cause === "REVOKED") expect(one.revokeAsked, row.id).toBe(true);
      if (row.end_cause !== "EXPIRED" && row.end_cause !== "REVOKED") expect(one.issued, `${row.id} ${row.end_cause}`).toBeUndefined();
    }
  },
);
