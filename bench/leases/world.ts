import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Redis } from "ioredis";
import pg from "pg";
import { stringify } from "yaml";
import { Sensitive } from "../../src/base/sensitive.ts";
import { freePort } from "../../src/dev/free-port.ts";
import { startLocalPostgres } from "../../src/dev/local-postgres.ts";
import { findRedis, startLocalRedis } from "../../src/dev/local-redis.ts";
import { DEV_TRUST_DOMAIN, ensureDevPki } from "../../src/dev/pki.ts";
import { bootstrapPostgres, brokerVerifier } from "../../src/engines/registry.ts";
import { CredentialService, IssueCredentialRequestSchema } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { OperatorService, TlsMode } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { GetSecretRequestSchema, SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { type Child, startChild } from "../child.ts";
import { encode, pathOf, Wire } from "../wire.ts";

/** Low iterations: the fewest. */
export const ROLES = {
  standard: "credentials/postgres/bench/standard",
  low: "credentials/postgres/bench/low",
  pool: "credentials/postgres/bench/pool",
} as const;
export const GROUP = "bench_rw";
export const BROKER_LOGIN = "leasehold_bench";
export const POOL_SIZE = 500;
const TTL_MS = 20 * 24 * 3_600_000;

/** A broker, and one PostgreSQL 18 with fsync on that is its store, its target and the floor of every bench. */
export interface LeaseWorld {
  /** Pid of the postmaster. */
  readonly postgres: number;
  readonly tls: { readonly ca: string; readonly certificate: string; readonly key: string };
  readonly instance: string;
  /** As the superuser, in the broker's own database; to prepare and to look. */
  readonly sql: pg.Client;
  /** The target as the bootstrapped login, which is no superuser: for floors. The caller ends it. */
  target(): Promise<pg.Client>;
  /** The broker's database as a plain client, for floors. The caller ends it. */
  store(): Promise<pg.Client>;
  readonly redis: Redis;
  readonly admin: Wire;
  broker: Child;
  /** Ends the broker and starts it again. */
  restart(): Promise<void>;
  /** Issues so many leases of a role, by the broker itself, and answers when they are there. */
  issue(role: string, count: number): Promise<void>;
  stop(): Promise<void>;
}

export async function makeLeaseWorld(): Promise<LeaseWorld> {
  const folder = mkdtempSync(join(tmpdir(), "leasehold-bench-leases-"));
  const pki = await ensureDevPki(join(folder, "pki"));
  const redisServer = findRedis();
  if (redisServer === undefined) throw new Error("the lease benches need a redis-server on the PATH");
  const localRedis = await startLocalRedis(join(folder, "redis"), await freePort(), redisServer);
  const postgres = await startLocalPostgres({
    dataDir: join(folder, "postgres"),
    password: randomBytes(16).toString("hex"),
    settings: { shared_buffers: "512MB", max_connections: "200", max_wal_size: "4GB" },
  });
  const first = await connected(postgres.url("postgres"));
  if ((await first.query<{ fsync: string }>("show fsync")).rows[0]?.fsync !== "on") throw new Error("the benches' PostgreSQL must have fsync on");
  await first.query("create database leasehold");
  await first.query(`create role ${GROUP} nologin`);
  await first.end();

  const config = join(folder, "leases.yaml");
  const settings = {
    listen: "127.0.0.1:0",
    log: { level: "warn" },
    store: { url: postgres.url("leasehold") },
    redis: { url: localRedis.url },
    kms: { provider: "file", file: join(folder, "kms.key"), create: true },
    tls: { certificate: pki.server.certificate, key: pki.server.key, trust: [{ trust_domain: DEV_TRUST_DOMAIN, bundle: pki.ca }] },
    limits: { rate_per_second: 1_000_000, rate_burst: 1_000_000 },
    administrators: [`spiffe://${DEV_TRUST_DOMAIN}/admin`],
  };
  writeFileSync(config, stringify(settings), { mode: 0o600 });
  const start = (): Promise<Child> => startChild("broker-child.ts", { args: [config], profile: process.env["LEASEHOLD_BENCH_PROFILE"] });
  const connect = (child: Child): Wire => new Wire((child.ready as { address: string }).address, pki.ca, pki.clients.admin);

  let broker = await start();
  let admin = connect(broker);
  const sql = await connected(postgres.url("leasehold"));
  const instance = (await sql.query<{ instance: string }>("select instance from store_state")).rows[0]!.instance;
  const password = randomBytes(24).toString("hex");
  const superuser = await connected(postgres.url("postgres"));
  const verifier = await brokerVerifier(Sensitive.text(password));
  await bootstrapPostgres(superuser, { instance, login: BROKER_LOGIN, verifier, allowedGroups: [GROUP] });
  await superuser.end();
  await prepare(admin, postgres.port, password);

  const world: LeaseWorld = {
    postgres: postgres.pid,
    tls: { ca: pki.ca, ...pki.clients["demo-app"] },
    instance,
    sql,
    target: () => connected(`postgres://${BROKER_LOGIN}:${password}@127.0.0.1:${postgres.port}/postgres`),
    store: () => connected(postgres.url("leasehold")),
    redis: new Redis(localRedis.url),
    admin,
    broker,
    async restart() {
      admin.close();
      await broker.stop();
      world.broker = broker = await start();
      Object.assign(world, { admin: (admin = connect(broker)) });
    },
    async issue(role, count) {
      const load = await startChild("load-child.ts", { args: [world.tls.ca, world.tls.certificate, world.tls.key] });
      await load.ask({ ...issueCall(world, role), calls: count, inFlight: 256 });
      await load.stop();
    },
    async stop() {
      admin.close();
      await broker.stop();
      world.redis.disconnect();
      await sql.end();
      await localRedis.stop();
      await postgres.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  return world;
}

/** What the load is asked to call. */
export function issueCall(world: LeaseWorld, role: string): { readonly address: string; readonly method: string; readonly requests: readonly string[] } {
  const request = encode(IssueCredentialRequestSchema, { path: role }).toString("base64");
  return { address: (world.broker.ready as { address: string }).address, method: pathOf(CredentialService.method.issueCredential), requests: [request] };
}

export function secretCall(world: LeaseWorld): { readonly address: string; readonly method: string; readonly requests: readonly string[] } {
  const request = encode(GetSecretRequestSchema, { path: "secrets/demo/key" }).toString("base64");
  return { address: (world.broker.ready as { address: string }).address, method: pathOf(SecretService.method.getSecret), requests: [request] };
}

async function prepare(admin: Wire, port: number, password: string): Promise<void> {
  const { method } = OperatorService;
  const text = (value: string) => ({ kind: { case: "text" as const, value } });
  const postgres = { host: "127.0.0.1", port, database: "postgres", username: BROKER_LOGIN, tlsMode: TlsMode.DISABLE };
  await admin.call(method.putTarget, { target: { name: "bench", engine: { case: "postgres", value: postgres }, password: text(password) } });
  const role = (path: string, scramIterations: number, more: object = {}) => ({
    role: {
      path,
      target: "bench",
      defaultTtl: durationFromMs(TTL_MS),
      maxTtl: durationFromMs(30 * 24 * 3_600_000),
      engine: { case: "postgres" as const, value: { database: "postgres", memberOf: [GROUP], scramIterations } },
      ...more,
    },
  });
  await admin.call(method.putRole, role(ROLES.standard, 4096));
  await admin.call(method.putRole, role(ROLES.low, 1));
  await admin.call(method.putRole, role(ROLES.pool, 1, { pool: { size: POOL_SIZE, refillPerSecond: 500 } }));
  const rules = [
    { paths: ["credentials/**"], allow: ["issue", "renew", "revoke", "list", "describe"] },
    { paths: ["secrets/{ns}/**"], allow: ["read"] },
  ];
  await admin.call(PolicyService.method.putPolicy, {
    policy: { name: "bench", principals: [`spiffe://${DEV_TRUST_DOMAIN}/ns/{ns}/sa/app`], rules, allowBroad: true },
  });
  await admin.call(SecretService.method.putSecret, { path: "secrets/demo/key", data: { value: text("x".repeat(256)) } });
}

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client(url);
  client.on("error", () => {});
  await client.connect();
  return client;
}
