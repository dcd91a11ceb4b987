import { randomBytes, randomUUID } from "node:crypto";
import { systemClock } from "../../src/base/clock.ts";
import { LeaseholdError } from "../../src/base/errors.ts";
import { type FaultPoint, setFaultHandler } from "../../src/base/fault-point.ts";
import { createLog } from "../../src/base/log.ts";
import { Metrics } from "../../src/base/metrics.ts";
import { Sensitive } from "../../src/base/sensitive.ts";
import { Catalog } from "../../src/catalog/catalog.ts";
import { OpenTargets } from "../../src/catalog/open-targets.ts";
import { CatalogWriter } from "../../src/catalog/write.ts";
import { Keyring } from "../../src/crypto/keyring.ts";
import { ENGINES } from "../../src/engines/registry.ts";
import { openKms } from "../../src/kms/registry.ts";
import type { Actor } from "../../src/model/audit.ts";
import type { RotationPolicy, RotationRecord } from "../../src/model/rotation.ts";
import type { SecretData } from "../../src/model/secret.ts";
import { ROTATORS } from "../../src/rotation/registry.ts";
import { ReadCounter } from "../../src/rotation/reads.ts";
import { createRotations, type Rotations } from "../../src/rotation/rotations.ts";
import type { CandidateStep, RotatorAbilities, RotatorDefinition } from "../../src/rotation/rotator.ts";
import { DEFAULT_ROTATION_SETTINGS, type RotationSettings } from "../../src/rotation/settings.ts";
import { decodePayload, encodePayload } from "../../src/secrets/payload.ts";
import { DueIndex } from "../../src/schedule/due-index.ts";
import { createRedis, redisScope } from "../../src/schedule/redis.ts";
import { SecretReader } from "../../src/secrets/read.ts";
import { SecretWriter } from "../../src/secrets/write.ts";
import { Pool } from "../../src/store/db.ts";
import { GroupCommitter } from "../../src/store/group-committer.ts";
import { seedRecords } from "../../src/store/keyring.ts";
import { LedgerClock } from "../../src/store/ledger-clock.ts";
import { findRotation } from "../../src/store/rotations.ts";
import { freshDatabase, type TestDatabase } from "./postgres.ts";
import { until } from "./until.ts";

const log = createLog("silent");
/** What one claim lasts, and a little. */
export const CLAIM_OVER_MS = DEFAULT_ROTATION_SETTINGS.claimMs + 1000;

/** What the rotator under test does to the outside, a table of a real PostgreSQL; and where a test cuts in. */
export interface Outside {
  /** Called before the outside is changed: freezes, or throws. */
  beforeSet?: ((step: CandidateStep<unknown>) => Promise<void>) | undefined;
  beforeTest?: ((step: CandidateStep<unknown>) => Promise<void>) | undefined;
  /** What `create` has answered, before it is committed. */
  created?: ((data: SecretData) => Promise<void>) | undefined;
  /** Absent: the rotator takes nothing back. */
  discard?: ((step: CandidateStep<unknown>) => Promise<void>) | undefined;
  readonly abilities?: Partial<RotatorAbilities>;
}

interface TableConfig {
  readonly target?: string;
  readonly logins?: readonly string[];
}

/** The password of one account, in a table: no fence, so that a late writer gets through. */
function tableRotator(database: TestDatabase, outside: Outside): RotatorDefinition {
  const password = (data: SecretData): string => data.get("password")!.value.revealText();
  return {
    name: "table",
    abilities: { candidateFromOutside: false, overlap: false, fencing: false, startsFromNothing: false, touchesOutside: true, ...outside.abilities },
    check: () => [],
    needs: () => [],
    target: (config) => (config as TableConfig).target,
    logins: (config) => ((config as TableConfig).logins ?? []).map((name) => ({ name })),
    open: () => ({
      ...(outside.discard === undefined ? {} : { discard: outside.discard }),
      async create({ current }) {
        const data: SecretData = new Map([...current!, ["password", { kind: "text", value: Sensitive.text(randomBytes(12).toString("hex")) }]]);
        await outside.created?.(data);
        return { data };
      },
      async set(step) {
        await outside.beforeSet?.(step);
        await database.query(
          "insert into outside (account, password, sets) values ($1, $2, 1) on conflict (account) do update set password = $2, sets = outside.sets + 1",
          [step.path, password(step.candidate)],
        );
      },
      async test(step) {
        await outside.beforeTest?.(step);
        const [row] = await database.query<{ password: string }>("select password from outside where account = $1", [step.path]);
        return row?.password === password(step.candidate) ? "works" : "refused";
      },
    }),
  };
}

export interface RotationReplica extends Rotations {
  readonly secrets: SecretWriter;
  readonly reads: ReadCounter;
  readonly targets: CatalogWriter;
  close(): Promise<void>;
}

export interface ReplicaOptions {
  readonly outside?: Outside;
  readonly settings?: Partial<RotationSettings>;
  /** As src/leases/gate.ts. */
  readonly gate?: (uid: string) => Promise<void>;
  /** With a due index. */
  readonly redisUrl?: string;
  readonly sweepMs?: number;
  /** Its workers may hang for good: the world's clock does not wait for them. */
  readonly freezes?: boolean;
}

export interface RotationWorld {
  readonly database: TestDatabase;
  replica(options?: ReplicaOptions): Promise<RotationReplica>;
  /** Moves the ledger's clock once nobody is at work, or a claim would end in the middle of it; nothing sleeps. */
  advance(ms: number): Promise<void>;
  /** A secret with a password that the outside accepts, under rotation. */
  account(by: RotationReplica, policy?: RotationPolicy, more?: { readonly maxCandidateFailures?: number } & TableConfig): Promise<string>;
  rotation(path: string): Promise<RotationRecord>;
  /** What CURRENT says. */
  current(path: string): Promise<SecretData>;
  password(path: string): Promise<string>;
  /** What the outside accepts, and how often it was set by rotations. */
  outside(path: string): Promise<{ readonly password: string; readonly sets: number }>;
  /** Types of the rotation's events in commit order. */
  events(path: string): Promise<number[]>;
  /** Sweeps, and moves the clock on whenever nothing is left to do at once, until the rotation waits (or is aborted). */
  settle(by: RotationReplica, path: string): Promise<RotationRecord>;
  close(): Promise<void>;
}

export function rotationActor(action = "RotationService/RotateNow"): Actor {
  return {
    principal: "spiffe://acme.test/admin",
    requestId: randomUUID(),
    traceId: randomBytes(16).toString("hex"),
    action,
    capability: "rotate",
    peer: "192.0.2.1",
  };
}

/** Ends the act at the first arrival at this point, as a process that dies there does: nothing more is written. */
export function dieAt(point: FaultPoint | undefined): void {
  let left = 1;
  setFaultHandler(
    point &&
      (async (at) => {
        if (at === point && left-- > 0) throw new LeaseholdError("DRAINING", "the test ended this worker");
      }),
  );
}

export async function rotationWorld(): Promise<RotationWorld> {
  process.env["LEASEHOLD_FAULT_POINTS"] = "1";
  const database = await freshDatabase();
  await database.query("insert into store_state (instance, epoch, system_identifier, timeline) values ('test', 1, '1', 1) on conflict do nothing");
  await database.query("create table outside (account text primary key, password text not null, sets integer not null)");
  const master = `leasehold-kms-v1:${randomBytes(32).toString("base64")}`;
  const replicas: RotationReplica[] = [];
  const clocks: LedgerClock[] = [];
  const awaited: RotationReplica[] = [];
  let offset = 0;
  let reader: SecretReader;
  let store: Pool;
  const quiet = () => Promise.all(awaited.map((one) => one.clockwork.quiet()));

  const world: RotationWorld = {
    database,
    async replica({ outside = {}, settings = {}, gate = async () => {}, redisUrl, sweepMs = 100, freezes = false } = {}) {
      const config = { url: database.url, poolSize: 6, statementTimeoutMs: 5000, connectTimeoutMs: 3000, requireSyncStandby: false };
      const db = new Pool(config, log);
      store = db;
      const keyring = new Keyring(seedRecords(db), openKms({ provider: "env", variable: "KEY" }, { KEY: master }));
      if (!(await keyring.unseal())) throw new Error(keyring.problem);
      const tail = { chain: randomUUID(), batch: 0, seq: 0, head: "00".repeat(32) };
      const committer = new GroupCommitter(config, tail, { fingerprint: (value) => value, committed: () => {} }, log);
      const catalog = new Catalog(db);
      await catalog.reset();
      const targets = new OpenTargets(
        db,
        keyring,
        catalog,
        ENGINES,
        { clock: systemClock, instance: "test", connectTimeoutMs: 2000, statementTimeoutMs: 5000, maxConnections: 4 },
        log,
      );
      const clock = new LedgerClock();
      clock.observe(Date.now() + offset, Date.now(), Date.now());
      clocks.push(clock);
      reader = new SecretReader(db, keyring, clock);
      const reads = new ReadCounter(db);
      const redis = redisUrl === undefined ? undefined : createRedis(redisUrl, log);
      if (redis !== undefined) await until("Redis answers", () => redis.status === "ready");
      const rotations = createRotations({
        db,
        clock,
        catalog,
        targets,
        keyring,
        committer,
        log,
        reads,
        metrics: new Metrics(),
        index: redis && new DueIndex(redis, redisScope("test"), "due-rotations"),
        instance: "test",
        sweepMs,
        gate,
        settings: { ...DEFAULT_ROTATION_SETTINGS, ...settings },
        rotators: [tableRotator(database, outside), ...(ROTATORS as readonly RotatorDefinition<never>[])] as readonly RotatorDefinition[],
      });
      const made: RotationReplica = {
        ...rotations,
        reads,
        secrets: new SecretWriter(db, keyring, committer, reader),
        targets: new CatalogWriter(catalog, targets, keyring, committer),
        async close() {
          await rotations.stop();
          redis?.disconnect();
          await targets.close();
          await committer.close();
          await db.close();
        },
      };
      replicas.push(made);
      if (!freezes) awaited.push(made);
      return made;
    },
    async advance(ms) {
      await quiet();
      offset += ms;
      const body = `select date_trunc('milliseconds', clock_timestamp()) + interval '${offset} ms'`;
      await database.query(`create or replace function leasehold_now() returns timestamptz language sql volatile parallel safe as $$ ${body} $$`);
      for (const clock of clocks) clock.observe(Date.now() + offset, Date.now(), Date.now());
    },
    async account(by, policy = {}, { maxCandidateFailures = 5, ...config } = {}) {
      const path = `secrets/accounts/${randomUUID()}`;
      const data: SecretData = new Map([["password", { kind: "text", value: Sensitive.text("first") }]]);
      const options = { expectedVersion: undefined, notBefore: undefined, expireAt: undefined };
      await by.secrets.put(path, encodePayload(data), options, rotationActor("SecretService/PutSecret"), undefined);
      await database.query("insert into outside (account, password, sets) values ($1, 'first', 0)", [path]);
      await by.writer.put({ path, rotator: "table", policy, maxCandidateFailures, config }, "", false, false, {
        actor: rotationActor(),
        request: undefined,
      });
      return path;
    },
    async rotation(path) {
      const found = await findRotation(store, path);
      if (found !== undefined) return found;
      throw new Error(`no rotation of ${path}`);
    },
    async current(path) {
      reader.forgetAll();
      const read = await reader.get(path, { kind: "label", label: "CURRENT" });
      return decodePayload(read.payload);
    },
    async password(path) {
      return (await world.current(path)).get("password")!.value.revealText();
    },
    async outside(path) {
      const [row] = await database.query<{ password: string; sets: number }>("select password, sets from outside where account = $1", [path]);
      return row!;
    },
    async events(path) {
      const rows = await database.query<{ type: number }>("select type from change_log where path = $1 and type >= 50 order by revision", [path]);
      return rows.map((row) => row.type);
    },
    async settle(by, path) {
      return until(`${path} is settled`, async () => {
        await by.clockwork.sweep();
        // What is claimed and not begun still says WAITING.
        await quiet();
        const found = await world.rotation(path);
        if (found.state !== "RUNNING") return found;
        const [row] = await database.query<{ waits: boolean }>("select due_at > leasehold_now() + interval '500 ms' as waits from rotation where path = $1", [
          path,
        ]);
        if (row!.waits) await world.advance(CLAIM_OVER_MS);
        return undefined;
      });
    },
    async close() {
      setFaultHandler(undefined);
      await Promise.all(replicas.map((one) => one.close()));
      await database.drop();
    },
  };
  return world;
}
