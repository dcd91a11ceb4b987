import { LeaseholdError } from "../../src/base/errors.ts";
import { randomBytes, randomUUID } from "node:crypto";
import type { Redis } from "ioredis";
import { systemClock } from "../../src/base/clock.ts";
import { createLog } from "../../src/base/log.ts";
import { Metrics } from "../../src/base/metrics.ts";
import { Catalog } from "../../src/catalog/catalog.ts";
import { OpenTargets } from "../../src/catalog/open-targets.ts";
import { CatalogWriter, type RoleInput } from "../../src/catalog/write.ts";
import { Keyring } from "../../src/crypto/keyring.ts";
import type { LoginRef, NewLogin, Target } from "../../src/engines/engine.ts";
import type { PostgresRoleConfig, PostgresTargetConfig } from "../../src/engines/postgres/config.ts";
import { ENGINES } from "../../src/engines/registry.ts";
import { openKms } from "../../src/kms/registry.ts";
import { createLedger, type Ledger } from "../../src/leases/ledger.ts";
import { DEFAULT_LEASE_SETTINGS, type LeaseSettings } from "../../src/leases/settings.ts";
import type { Actor } from "../../src/model/audit.ts";
import type { LeaseRecord } from "../../src/model/lease.ts";
import { DueIndex } from "../../src/schedule/due-index.ts";
import { createRedis, redisScope } from "../../src/schedule/redis.ts";
import { Pool } from "../../src/store/db.ts";
import { GroupCommitter } from "../../src/store/group-committer.ts";
import { seedRecords } from "../../src/store/keyring.ts";
import { LedgerClock } from "../../src/store/ledger-clock.ts";
import { findLease } from "../../src/store/leases.ts";
import { bootstrapCluster, BROKER, INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { type Cluster, startCluster } from "../conformance/engine-clusters.ts";
import { freshDatabase, type TestDatabase } from "./postgres.ts";

const log = createLog("silent");
export const OWNER = "spiffe://acme.test/ns/a/sa/app";
export const ROLE = "credentials/postgres/a/ro";
const HOUR = 3_600_000;

export function actorOf(principal = OWNER, action = "CredentialService/IssueCredential"): Actor {
  return { principal, requestId: randomUUID(), traceId: randomBytes(16).toString("hex"), action, capability: "issue", peer: "192.0.2.1" };
}

/** A bootstrapped PostgreSQL that the broker issues logins on. */
export interface LeaseTarget {
  readonly cluster: Cluster;
  readonly config: PostgresTargetConfig;
  readonly role: PostgresRoleConfig;
  readonly password: Awaited<ReturnType<typeof bootstrapCluster>>["password"];
  /** Does this login exist? */
  has(username: string): Promise<boolean>;
  /** May it log in? False when it does not exist, too. */
  canLogin(username: string): Promise<boolean>;
  /** Connections of the broker's own login now. */
  connections(): Promise<number>;
  /** Unix milliseconds. */
  validUntil(username: string): Promise<number>;
  sql(text: string): Promise<void>;
}

export async function startLeaseTarget(password?: LeaseTarget["password"]): Promise<LeaseTarget> {
  const cluster = await startCluster("18");
  const prepared = await bootstrapCluster(cluster, password);
  const query = async <R extends object>(text: string, values: unknown[] = []): Promise<R[]> => {
    const client = await cluster.superuser();
    try {
      return (await client.query<R>(text, values)).rows;
    } finally {
      await client.end();
    }
  };
  return {
    cluster,
    ...prepared,
    has: async (username) => (await query("select from pg_roles where rolname = $1", [username])).length === 1,
    canLogin: async (username) => (await query("select from pg_roles where rolname = $1 and rolcanlogin", [username])).length === 1,
    connections: async () => (await query<{ n: number }>("select count(*)::int as n from pg_stat_activity where usename = $1", [BROKER]))[0]!.n,
    validUntil: async (username) => (await query<{ at: Date }>("select rolvaliduntil as at from pg_roles where rolname = $1", [username]))[0]!.at.getTime(),
    sql: async (text) => void (await query(text)),
  };
}

/** Stands between the broker and a real target: where a worker is frozen, dies, or loses an answer. */
export interface Faults {
  beforeCreate?: ((login: NewLogin<unknown>) => Promise<void>) | undefined;
  afterCreate?: (() => Promise<void>) | undefined;
  beforeEnable?: (() => Promise<void>) | undefined;
  afterEnable?: (() => Promise<void>) | undefined;
  beforeRenew?: (() => Promise<void>) | undefined;
  afterRenew?: (() => Promise<void>) | undefined;
  beforeRevoke?: ((login: LoginRef) => Promise<void>) | undefined;
  /** Told of each look at the target. */
  looks?: (() => void) | undefined;
}

function faulty(target: Target<unknown>, faults: Faults): Target<unknown> {
  return {
    identify: () => (faults.looks?.(), target.identify()),
    find: (name) => (faults.looks?.(), target.find(name)),
    ...(target.present === undefined ? {} : { present: (names) => (faults.looks?.(), target.present!(names)) }),
    preflight: (role) => target.preflight(role),
    close: () => target.close(),
    ...(target.enable === undefined
      ? {}
      : {
          async enable(login, validForMs, deadlineAt) {
            await faults.beforeEnable?.();
            await target.enable!(login, validForMs, deadlineAt);
            await faults.afterEnable?.();
          },
        }),
    async create(login) {
      await faults.beforeCreate?.(login);
      const created = await target.create(login);
      await faults.afterCreate?.();
      return created;
    },
    async renew(login, validForMs) {
      await faults.beforeRenew?.();
      await target.renew(login, validForMs);
      await faults.afterRenew?.();
    },
    async revoke(login) {
      await faults.beforeRevoke?.(login);
      return target.revoke(login);
    },
  };
}

export interface ReplicaOptions {
  readonly settings?: Partial<LeaseSettings>;
  readonly redisUrl?: string;
  readonly faults?: Faults;
  readonly sweepMs?: number;
}

/** One broker process's lease ledger, without the wire. Its clockwork stands still until `start` or `sweep`. */
export interface Replica extends Ledger {
  readonly db: Pool;
  readonly clock: LedgerClock;
  readonly catalog: Catalog;
  readonly writer: CatalogWriter;
  readonly committer: GroupCommitter;
  readonly keyring: Keyring;
  readonly redis: Redis | undefined;
  lease(id: string): Promise<LeaseRecord>;
  close(): Promise<void>;
}

/** A ledger's database with one target and one role; any number of replicas may work on it. */
export interface LeaseWorld {
  readonly database: TestDatabase;
  replica(options?: ReplicaOptions): Promise<Replica>;
  /** Moves the ledger's clock; nothing sleeps. */
  advance(ms: number): Promise<void>;
  /** The ledger's clock, Unix milliseconds. */
  now(): Promise<number>;
  /** Actions of the lease's audit records, oldest first. */
  actions(id: string): Promise<string[]>;
  /** Types of the lease's events in commit order. */
  events(id: string): Promise<number[]>;
  putTarget(name: string, target: LeaseTarget): Promise<void>;
  putRole(path: string, target: string, config: PostgresRoleConfig, more?: Partial<RoleInput>): Promise<void>;
  close(): Promise<void>;
}

export async function leaseWorld(target: LeaseTarget): Promise<LeaseWorld> {
  const database = await freshDatabase();
  // What openState() does at the start of a process; and the target knows no other ledger.
  await database.query("insert into store_state (instance, epoch, system_identifier, timeline) values ($1, 1, '1', 1) on conflict do nothing", [INSTANCE]);
  await target.sql(
    "do $$ declare r text; begin for r in select rolname from pg_roles where rolname like 'lh\\_w\\_%' loop execute format('drop role %I', r); end loop; end $$",
  );
  const master = `leasehold-kms-v1:${randomBytes(32).toString("base64")}`;
  const replicas: Replica[] = [];
  let offset = 0;

  async function replica(options: ReplicaOptions = {}): Promise<Replica> {
    const config = { url: database.url, poolSize: 6, statementTimeoutMs: 5000, connectTimeoutMs: 3000, requireSyncStandby: false };
    const db = new Pool(config, log);
    const keyring = new Keyring(seedRecords(db), openKms({ provider: "env", variable: "KEY" }, { KEY: master }));
    if (!(await keyring.unseal())) throw new Error(keyring.problem);
    const tail = { chain: randomUUID(), batch: 0, seq: 0, head: "00".repeat(32) };
    const committer = new GroupCommitter(config, tail, { fingerprint: (value) => value, committed: () => {} }, log);
    const catalog = new Catalog(db);
    await catalog.reset();
    const timeouts = { connectTimeoutMs: 2000, statementTimeoutMs: 5000, maxConnections: 8 };
    const targets = new OpenTargets(db, keyring, catalog, ENGINES, { clock: systemClock, instance: INSTANCE, ...timeouts }, log);
    const redis = options.redisUrl === undefined ? undefined : createRedis(options.redisUrl, log);
    const clock = new LedgerClock();
    clock.observe(Date.now() + offset, Date.now(), Date.now());
    const { faults } = options;
    const ledger = createLedger({
      db,
      clock,
      catalog,
      targets: faults === undefined ? targets : { open: async (uid) => faulty(await targets.open(uid), faults) },
      keyring,
      committer,
      index: redis === undefined ? undefined : new DueIndex(redis, redisScope(database.database)),
      instance: INSTANCE,
      settings: { ...DEFAULT_LEASE_SETTINGS, ...options.settings },
      sweepMs: options.sweepMs ?? 100,
      serving: () => false,
      log,
      metrics: new Metrics(),
    });
    const made: Replica = {
      ...ledger,
      db,
      clock,
      catalog,
      writer: new CatalogWriter(catalog, targets, keyring, committer),
      committer,
      keyring,
      redis,
      async lease(id) {
        const found = await findLease(db, id);
        if (found === undefined) throw new Error(`no lease ${id}`);
        return found;
      },
      async close() {
        replicas.splice(replicas.indexOf(made), 1);
        await ledger.pool.stop();
        await ledger.drawn.stop();
        await ledger.clockwork.stop();
        redis?.disconnect();
        await targets.close();
        await committer.close();
        await db.close();
      },
    };
    replicas.push(made);
    return made;
  }

  const admin = await replica();
  const write = { etag: "", dryRun: false, actor: actorOf("spiffe://acme.test/admin", "OperatorService/PutTarget"), request: undefined };
  const world: LeaseWorld = {
    database,
    replica,
    async advance(ms) {
      offset += ms;
      const now = `select date_trunc('milliseconds', clock_timestamp() + ${offset} * interval '1 ms')`;
      await database.query(`create or replace function leasehold_now() returns timestamptz language sql volatile parallel safe as $$ ${now} $$`);
      for (const { clock } of replicas) clock.observe(Date.now() + offset, Date.now(), Date.now());
    },
    now: async () => Number((await database.query<{ now: Date }>("select leasehold_now() as now"))[0]!.now),
    async actions(id) {
      const rows = await database.query<{ action: string }>(
        "select record->>'action' as action from audit_record where record->>'lease' = $1 order by record->>'at', seq",
        [id],
      );
      return rows.map((row) => row.action);
    },
    async events(id) {
      const rows = await database.query<{ type: number }>("select type from change_log where lease_id = $1 order by revision", [id]);
      return rows.map((row) => row.type);
    },
    async putTarget(name, { config, password }) {
      await admin.writer.putTarget({ name, engine: "postgres", config, password }, { ...write, etag: "" });
      await Promise.all(replicas.map(({ catalog }) => catalog.reset()));
    },
    async putRole(path, targetName, config, more = {}) {
      await admin.writer.putRole({ path, target: targetName, engine: "postgres", defaultTtlMs: HOUR, maxTtlMs: 4 * HOUR, config, ...more }, write);
      await Promise.all(replicas.map(({ catalog }) => catalog.reset()));
    },
    async close() {
      await Promise.all([...replicas].map((each) => each.close()));
      await database.drop();
    },
  };
  await world.putTarget("db", target);
  await world.putRole(ROLE, "db", target.role);
  return world;
}

/** The worker dies here: nothing of it happens any more, and nobody is told. */
export async function dies(): Promise<never> {
  throw new LeaseholdError("TARGET_UNAVAILABLE", "the test cut the line");
}

/** A step that waits until it is let go: `await gate.reached` says that somebody stands before it. */
export function gate(): { readonly reached: Promise<void>; readonly open: () => void; readonly pass: () => Promise<void> } {
  const [arrived, opened] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  return {
    reached: arrived.promise,
    open: opened.resolve,
    pass: () => {
      arrived.resolve();
      return opened.promise;
    },
  };
}
