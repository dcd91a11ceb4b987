import { timestampMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CallError } from "../../src/client/errors.ts";
import type { IssueCredentialResponse } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { type Broker, type ChildBroker, idOf, leaseWorld, type LeaseWorld, logins, targetCluster, works } from "../support/lease-world.ts";
import type { TestCluster } from "../support/postgres.ts";
import { freshRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

/** More of them, for a longer look: `KILLS=500 npx vitest run test/fault/lease-kill.test.ts`. */
const KILLS = Number(process.env["KILLS"] ?? 12);
const REPLICAS = 3;
const WORKERS = 6;
/** Each this many rounds a replica is frozen for a while instead of killed. */
const FREEZE_EACH = 4;
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
const replicas = new Set<ChildBroker>();

beforeAll(async () => {
  [target, redis] = await Promise.all([targetCluster(), freshRedis()]);
  world = await leaseWorld({ redisUrl: redis.url, grace: `${GRACE_MS}ms` });
  survivor = await world.start();
  role = await world.addTarget(survivor, "main", target);
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
    const lease = dice < 0.5 ? undefined : oneOf(this.known.values());
    if (lease === undefined) {
      const issued = await app.issue(role, oneOf([1000, 3000, 120_000]));
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

async function addReplica(): Promise<void> {
  replicas.add(await world.spawn());
}

test(
  `lesson 1, findings 8 and 17: after ${KILLS} kills in the middle of work no login is without its lease, no lease without its login, and nothing ended early`,
  { timeout: 120_000 + KILLS * 5000 },
  async () => {
    await Promise.all(Array.from({ length: REPLICAS }, addReplica));
    const load = new Load();
    const more = async (answers: number): Promise<void> => {
      const at = load.answered + answers;
      await until("more answers", () => load.answered >= at);
    };
    for (let round = 0; round < KILLS; round++) {
      await more(5 + Math.floor(Math.random() * 25));
      const victim = oneOf(replicas)!;
      replicas.delete(victim);
      if (round % FREEZE_EACH === FREEZE_EACH - 1) {
        victim.program.signal("SIGSTOP");
        await more(40);
        victim.program.signal("SIGCONT");
        replicas.add(victim);
      } else {
        await victim.program.killTree();
        if (replicas.size < REPLICAS - 1) await addReplica();
        else void addReplica().catch(() => undefined);
      }
    }
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
    const live = new Set(before.filter((row) => ["PENDING", "ACTIVE", "REVOKING"].includes(row.state)).map((row) => row.username));
    expect(there.map(({ name }) => name).filter((name) => name.startsWith("lh_") && !name.startsWith("lh_w_") && !live.has(name))).toEqual([]);

    // Everything ends when its time has come, once.
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
      expect(ends.length, row.id).toBe(row.state === "REVOKED" ? 1 : 0);
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
