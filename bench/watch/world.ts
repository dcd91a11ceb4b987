import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { stringify } from "yaml";
import { freePort } from "../../src/dev/free-port.ts";
import { startLocalPostgres } from "../../src/dev/local-postgres.ts";
import { findRedis, startLocalRedis } from "../../src/dev/local-redis.ts";
import { DEV_TRUST_DOMAIN, ensureDevPki } from "../../src/dev/pki.ts";
import { PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { type Child, startChild } from "../child.ts";
import { Wire } from "../wire.ts";

export interface Broker {
  readonly child: Child;
  readonly address: string;
  readonly admin: Wire;
  stop(): Promise<void>;
}

/** A PostgreSQL with fsync on and a Redis, on which brokers are started; and bare servers for floors. */
export interface WatchWorld {
  readonly tls: { readonly ca: string; readonly certificate: string; readonly key: string };
  readonly redisUrl: string;
  /** The broker's database, as the superuser. */
  readonly sql: pg.Client;
  readonly broker: () => Promise<Broker>;
  /** A bare grpc-js server with streams, on the broker's own TLS front. */
  readonly floor: () => Promise<Child>;
  /** A process that watches. */
  readonly watchers: () => Promise<Child>;
  stop(): Promise<void>;
}

export async function makeWatchWorld(profile: string | undefined): Promise<WatchWorld> {
  const folder = mkdtempSync(join(tmpdir(), "leasehold-bench-watch-"));
  const pki = await ensureDevPki(join(folder, "pki"));
  const redisServer = findRedis();
  if (redisServer === undefined) throw new Error("the watch benches need a redis-server on the PATH");
  const redis = await startLocalRedis(join(folder, "redis"), await freePort(), redisServer);
  const password = randomBytes(16).toString("hex");
  const postgres = await startLocalPostgres({ dataDir: join(folder, "postgres"), password, settings: { shared_buffers: "256MB" } });
  const first = await connected(postgres.url("postgres"));
  await first.query("create database leasehold");
  await first.end();
  const config = join(folder, "watch.yaml");
  const settings = {
    listen: "127.0.0.1:0",
    log: { level: "warn" },
    store: { url: postgres.url("leasehold") },
    redis: { url: redis.url },
    kms: { provider: "file", file: join(folder, "kms.key"), create: true },
    tls: { certificate: pki.server.certificate, key: pki.server.key, trust: [{ trust_domain: DEV_TRUST_DOMAIN, bundle: pki.ca }] },
    limits: { rate_per_second: 1_000_000, rate_burst: 1_000_000 },
    administrators: [`spiffe://${DEV_TRUST_DOMAIN}/admin`],
  };
  writeFileSync(config, stringify(settings), { mode: 0o600 });
  const tls = { ca: pki.ca, ...pki.clients["demo-app"] };
  const running = new Set<{ stop(): Promise<void> }>();
  const kept = <T extends { stop(): Promise<void> }>(part: T): T => {
    running.add(part);
    return part;
  };
  const broker = async (): Promise<Broker> => {
    const child = await startChild("broker-child.ts", { args: [config], flags: ["--expose-gc"], profile });
    const { address } = child.ready as { address: string };
    const admin = new Wire(address, pki.ca, pki.clients.admin);
    const started: Broker = {
      child,
      address,
      admin,
      async stop() {
        running.delete(started);
        admin.close();
        await child.stop();
      },
    };
    return kept(started);
  };
  const setup = await broker();
  const rules = [{ paths: ["secrets/{ns}/**"], allow: ["read", "watch"] }];
  const principals = [`spiffe://${DEV_TRUST_DOMAIN}/ns/{ns}/sa/app`];
  await setup.admin.call(PolicyService.method.putPolicy, { policy: { name: "bench", principals, rules } });
  await setup.stop();
  const sql = await connected(postgres.url("leasehold"));
  return {
    tls,
    redisUrl: redis.url,
    sql,
    broker,
    floor: async () => kept(await startChild("watch/floor-child.ts", { args: [config, redis.url], flags: ["--expose-gc"] })),
    watchers: async () => kept(await startChild("watch/watchers-child.ts", { args: [tls.ca, tls.certificate, tls.key] })),
    async stop() {
      for (const part of running) await part.stop();
      await sql.end();
      await redis.stop();
      await postgres.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** One change of `secrets/demo/<name>`. */
export async function change(broker: Broker, name: string): Promise<void> {
  await broker.admin.call(SecretService.method.putSecret, { path: `secrets/demo/${name}`, data: { k: { kind: { case: "text", value: "value" } } } });
}

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client(url);
  client.on("error", () => {});
  await client.connect();
  return client;
}
