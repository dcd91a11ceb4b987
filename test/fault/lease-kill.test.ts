import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FAULT_POINTS as ALL_POINTS } from "../../src/base/fault-point.ts";
import { CallError } from "../../src/client/errors.ts";
import { OperatorService } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import type { IssueCredentialResponse } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { type Broker, type ChildBroker, idOf, leaseWorld, type LeaseWorld, logins, targetCluster, works } from "../support/lease-world.ts";
import type { TestCluster } from "../support/postgres.ts";
import { isStopped } from "../support/process.ts";
import { freshRedis, type TestRedis } from "../support/redis.ts";
import { tempFolder } from "../support/temp.ts";
import { until } from "../support/until.ts";

/** Rotations have a test of their own (rotation-kill.test.ts). */
const FAULT_POINTS = ALL_POINTS.filter((point) => !point.startsWith("rotate."));
/** More of them, for a longer look: `npm run test:kill`. In the suite, one at each point. */
const KILLS = Number(process.env["KILLS"] ?? FAULT_POINTS.length);
const REPLICAS = 4;
const WORKERS = 8;
/** Each this many deaths is a freeze for a while instead. */
const FREEZE_EACH = 5;
/** What a freeze lasts at most: those who called the frozen one wait for it. */
const FROZEN_MS = 3000;
/** At which arrival a replica dies, at most. */
const LATEST_ARRIVAL = 4;
/** Answers after which a replica that has not come to its point is killed where it stands. */
const PATIENCE = 300;
const GRACE_MS = 10_000;
const [ISSUED, EXPIRED, REVOKED] = [20, 22, 23];

/** What the test knows of a lease, from answers alone. */
interface Known {
  readonly issued: IssueCredentialResponse;
  /** The latest end that a renewal was answered with. */
  promisedUntil: number;
  /** Somebody asked for its end; whether it was answered does not matter. */
  revokeAsked: boolean;
}

interface Row {
  readonly id: string;
  readonly state: string;
  readonly username: string;
  readonly end_cause: string | null;
  readonly expire_at: Date;
  readonly delivered: boolean;
  readonly live: boolean;
}

let world: LeaseWorld;
let target: TestCluster;
let redis: TestRedis;
let survivor: Broker;
let role: string;
let pooledRole: string;
let crashLog: string;
/** Those that calls are sent to. */
const replicas = new Set<ChildBroker>();
/** Deaths planned so far; each one takes the next point in turn. */
let planned = 0;

beforeAll(async () => {
  [target, redis] = await Promise.all([targetCluster(), freshRedis()]);
  world = await leaseWorld({ redisUrl: redis.url, grace: `${GRACE_MS}ms` });
  survivor = await world.start();
  role = await world.addTarget(survivor, "main", target);
  pooledRole = await world.addRole(survivor, "main/pooled", "main", { pool: { size: 32, refillPerSecond: 40 } });
  crashLog = join(tempFolder("crashes"), "log");
  writeFileSync(crashLog, "");
});
afterAll(async () => {
  await world?.close();
  await Promise.all([target?.remove(), redis?.stop()]);
});

function rows(): Promise<Row[]> {
  return world.store.query<Row>("select id, state, username, end_cause, expire_at, delivered, expire_at > leasehold_now() + interval '2 s' as live from lease");
}

function oneOf<T>(values: Iterable<T>): T | undefined {
  const all = [...values];
  return all[Math.floor(Math.random() * all.length)];
}

/** Issues, renews and revokes through whatever replica runs, until told to end. */
class Load {
  readonly known = new Map<string, Known>();
  answered = 0;
  #ended = false;
  readonly #workers: Promise<void>[];

  constructor() {
    this.#workers = Array.from({ length: WORKERS }, () => this.#work());
  }

  async end(): Promise<void> {
    this.#ended = true;
    await Promise.all(this.#workers);
  }

  async #work(): Promise<void> {
    while (!this.#ended) {
      const replica = oneOf(replicas) ?? survivor;
      try {
        await this.#act(replica);
        this.answered++;
      } catch (error) {
        // Its replica was killed, or somebody else ended the lease first.
        if (!(error instanceof CallError)) throw error;
        if (error.reason === "INTERNAL") throw error;
        await new Promise(setImmediate);
      }
    }
  }

  async #act(by: Broker): Promise<void> {
    const app = by.as("app");
    const dice = Math.random();
    if (dice < 0.04) return void (await by.as("admin").call(OperatorService.method.rotateTargetLogin, { path: "targets/main" }));
    const lease = dice < 0.5 ? undefined : oneOf(this.known.values());
    if (lease === undefined) {
      const issued = await app.issue(oneOf([role, pooledRole])!, oneOf([1000, 3000, 120_000]));
      this.known.set(idOf(issued.lease!.path), { issued, promisedUntil: timestampMs(issued.lease!.expireTime!), revokeAsked: false });
    } else if (dice < 0.85) {
      const renewed = await app.renew(lease.issued.lease!.path, 120_000);
      lease.promisedUntil = Math.max(lease.promisedUntil, timestampMs(renewed.expireTime!));
    } else {
      lease.revokeAsked = true;
      await app.revoke(lease.issued.lease!.path);
    }
  }
}

/** A replica that will die, or freeze, at the point whose turn it is; undefined when it has done so before it served: what is due is taken up first. */
async function nextReplica(): Promise<ChildBroker | undefined> {
  const n = planned++;
  const missing = FAULT_POINTS.filter((each) => !crashes().some((line) => line.startsWith(`${each} `)));
  // Every point in turn; then those that nobody has come to.
  const point = n < FAULT_POINTS.length || missing.length === 0 ? FAULT_POINTS[n % FAULT_POINTS.length]! : missing[n % missing.length]!;
  const crash = {
    CRASH_AT: point,
    CRASH_ON: String(1 + Math.floor(Math.random() * (point.startsWith("login.") ? 1 : LATEST_ARRIVAL))),
    CRASH_HOW: n % FREEZE_EACH === FREEZE_EACH - 1 ? "SIGSTOP" : "SIGKILL",
    CRASH_LOG: crashLog,
    CRASH_ID: String(n),
  };
  try {
    return await world.spawn({}, crash);
  } catch (error) {
    if (crashes().some((line) => line.endsWith(` ${n}`))) return undefined;
    throw error;
  }
}

/** One replica after the other, each until it has died: by itself at its point; by us after it froze, woke up and went on for a while; or where it stands, when it has not come to its point for long. */
async function seat(load: Load, over: () => boolean): Promise<void> {
  while (!over()) {
    const replica = await nextReplica();
    if (replica === undefined) continue;
    const { program } = replica;
    let dead = false;
    void program.ended.then(() => replicas.delete(replica) && (dead = true));
    replicas.add(replica);
    const late = load.answered + PATIENCE;
    await until("a death, a freeze, or the end of patience", () => dead || isStopped(program.pid) || load.answered >= late || over(), 120_000);
    if (!dead && isStopped(program.pid)) {
      // Who has frozen answers nobody: others go on without him, then he wakes up and goes on where he stood.
      replicas.delete(replica);
      await answersOf(load);
      program.signal("SIGCONT");
      await answersOf(load);
    }
    replicas.delete(replica);
    await program.killTree();
  }
}

/** Some answers of whoever is there, or a while. */
async function answersOf(load: Load): Promise<void> {
  const [answers, since] = [load.answered + 15, performance.now()];
  await until("some answers, or a while", () => load.answered >= answers || performance.now() - since > FROZEN_MS);
}

/** How many different points somebody has died, or frozen, at. */
function pointsDiedAt(): number {
  return new Set(crashes().map((line) => line.split(" ")[0])).size;
}

/** Lines of the crash log: a point, a signal and whose it was. */
function crashes(): string[] {
  return readFileSync(crashLog, "utf8")
    .split("\n")
    .filter((line) => line !== "");
}

test(
  `lesson 1, findings 8 and 17: after ${KILLS} deaths at named points, in the middle of work, no login is without its lease, no lease without its login, and nothing ended early`,
  { timeout: 180_000 + KILLS * 10_000 },
  async () => {
    const load = new Load();
    const over = (): boolean => crashes().length >= KILLS && pointsDiedAt() >= Math.min(KILLS, FAULT_POINTS.length);
    await Promise.all(Array.from({ length: REPLICAS }, () => seat(load, over)));
    await load.end();

    // What was answered and neither ends soon nor was given up works; the target's own end lies behind the ledger's.
    const before = await rows();
    const there = await target.query<{ name: string; until: Date }>("select rolname as name, rolvaliduntil as until from pg_roles");
    const after = new Map((await rows()).map((row) => [row.id, row]));
    const known = (row: Row): Known | undefined => load.known.get(row.id);
    for (const row of before.filter((one) => one.live && after.get(one.id)!.live)) {
      const lease = known(row);
      if (lease === undefined || lease.revokeAsked) continue;
      expect(row, row.id).toMatchObject({ state: "ACTIVE", delivered: true });
      const login = there.find(({ name }) => name === row.username);
      expect(login, `login of ${row.id}`).toBeDefined();
      expect(login!.until.getTime()).toBeGreaterThanOrEqual(lease.promisedUntil);
    }
    const sample = oneOf([...load.known.values()].filter((lease) => !lease.revokeAsked && lease.promisedUntil > Date.now() + 10_000));
    expect(sample === undefined || (await works(sample.issued))).toBe(true);
    const live = new Set(before.filter((row) => ["PENDING", "READY", "ACTIVE", "REVOKING"].includes(row.state)).map((row) => row.username));
    expect(there.map(({ name }) => name).filter((name) => name.startsWith("lh_") && !name.startsWith("lh_w_") && !live.has(name))).toEqual([]);

    expect(pointsDiedAt()).toBeGreaterThanOrEqual(Math.min(KILLS, FAULT_POINTS.length));

    // Everything ends when its time has come, once; and what the pool holds when its role is gone.
    await survivor.as("admin").call(OperatorService.method.deleteRole, { path: pooledRole });
    await world.shiftClock(1_000_000);
    await until("every lease to have ended", async () => (await rows()).every((row) => row.state === "REVOKED" || row.state === "ROLLED_BACK"), 60_000);
    expect(await logins(target)).toEqual([]);
    const events = await world.store.query<{ lease_id: string; type: number; at: Date }>(
      "select lease_id, type, at from change_log where lease_id is not null order by revision",
    );
    for (const row of await rows()) {
      const own = events.filter((event) => event.lease_id === row.id);
      const lease = known(row);
      const ends = own.filter(({ type }) => type === EXPIRED || type === REVOKED);
      expect(ends.length, row.id).toBe(row.state === "REVOKED" && row.end_cause !== "POOL" ? 1 : 0);
      if (lease !== undefined) expect(own[0]?.type, row.id).toBe(ISSUED);
      if (row.end_cause === "EXPIRED") {
        expect(ends[0]!.at.getTime()).toBeGreaterThanOrEqual(row.expire_at.getTime());
        expect(row.expire_at.getTime()).toBeGreaterThanOrEqual(lease?.promisedUntil ?? 0);
      }
      if (row.end_cause === "REVOKED") expect(lease?.revokeAsked, row.id).toBe(true);
      if (row.end_cause === "UNDELIVERED" || row.end_cause === "ISSUE_FAILED") expect(lease, row.id).toBeUndefined();
    }
  },
);
