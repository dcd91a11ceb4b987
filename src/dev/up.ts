import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { relative, resolve } from "node:path";
import { stringify } from "yaml";
import { startApp } from "../app.ts";
import { parseConfig } from "../config.ts";
import { freePort } from "./free-port.ts";
import { type Layout, layoutOf } from "./layout.ts";
import { type LocalPostgres, startLocalPostgres } from "./local-postgres.ts";
import { findRedis, type LocalRedis, startLocalRedis } from "./local-redis.ts";
import { DEV_TRUST_DOMAIN, type DevPki, ensureDevPki } from "./pki.ts";
import { seedDemo } from "./seed.ts";
import pg from "pg";

export interface DevOptions {
  /** Folder of the broker's things; `.leasehold` in the working folder. */
  readonly folder: string;
  readonly listen: string;
  /** Takes the lines for people. */
  readonly say: (line: string) => void;
}

export interface Dev {
  readonly address: string;
  stop(): Promise<void>;
}

const STORE_DATABASE = "leasehold";

/** Ports and passwords of the private servers; made once. */
interface Secrets {
  readonly postgresPassword: string;
  readonly brokerPassword: string;
  readonly postgresPort: number;
}

/**
 * A complete broker on this machine: PostgreSQL, Redis where there is one, a PKI, migrations, and a demo to play with. Keeps everything below one folder and leaves no
 * process behind. Throws a LeaseholdError with one clear line.
 */
export async function startDev(options: DevOptions): Promise<Dev> {
  const layout = layoutOf(resolve(options.folder));
  mkdirSync(layout.root, { recursive: true, mode: 0o700 });
  const stops: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (const end of stops.splice(0).reverse()) await end();
  };
  try {
    const secrets = await readSecrets(layout);
    const [pki, postgres, redis] = await allOrNone(ensureDevPki(layout.pki), startPostgres(layout, secrets, stops), startRedis(layout, options, stops));
    const urlOf = (database: string): string => `postgresql://postgres:${secrets.postgresPassword}@127.0.0.1:${postgres.port}/${database}`;
    await ensureDatabase(urlOf, STORE_DATABASE);
    const text = configText(options, layout, pki, urlOf(STORE_DATABASE), redis?.url ?? "");
    writePrivate(layout.config, text);
    const app = await startApp(parseConfig(text, {}, layout.root));
    stops.push(() => app.stop());
    await seedDemo(app.address, pki, { url: urlOf, port: postgres.port, brokerPassword: secrets.brokerPassword });
    writePrivate(layout.dev, JSON.stringify(devFile(layout, pki, app.address), undefined, 2));
    // Only now is it ours to remove: a start that failed because another broker runs here must leave that one's file.
    stops.push(async () => rmSync(layout.dev, { force: true }));
    return { address: app.address, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Side by side, but waits for all even if one fails: what another has started by then must be stopped, not left behind. */
async function allOrNone<A, B, C>(a: Promise<A>, b: Promise<B>, c: Promise<C>): Promise<[A, B, C]> {
  await Promise.allSettled([a, b, c]);
  return Promise.all([a, b, c]);
}

async function startPostgres(layout: Layout, secrets: Secrets, stops: (() => Promise<void>)[]): Promise<LocalPostgres> {
  const postgres = await startLocalPostgres({
    dataDir: layout.postgres,
    port: secrets.postgresPort,
    password: secrets.postgresPassword,
    settings: { max_connections: "60", shared_buffers: "64MB" },
  });
  stops.push(() => postgres.stop());
  return postgres;
}

async function startRedis(layout: Layout, options: DevOptions, stops: (() => Promise<void>)[]): Promise<LocalRedis | undefined> {
  const server = findRedis();
  if (server === undefined) {
    options.say(
      "no redis-server or valkey-server found: leases expire within seconds instead of at once (Debian: apt-get install redis-server, macOS: brew install redis)",
    );
    return undefined;
  }
  const redis = await startLocalRedis(layout.redis, await freePort(), server);
  stops.push(() => redis.stop());
  return redis;
}

async function ensureDatabase(urlOf: (database: string) => string, database: string): Promise<void> {
  const client = new pg.Client(urlOf("postgres"));
  await client.connect();
  try {
    const found = await client.query("select from pg_database where datname = $1", [database]);
    if (found.rowCount === 0) await client.query(`create database ${database}`);
  } finally {
    await client.end();
  }
}

async function readSecrets(layout: Layout): Promise<Secrets> {
  const known = existsSync(layout.secrets) ? (JSON.parse(readFileSync(layout.secrets, "utf8")) as Secrets) : undefined;
  if (known !== undefined) return known;
  const secrets = { postgresPassword: randomBytes(24).toString("hex"), brokerPassword: randomBytes(24).toString("hex"), postgresPort: await freePort() };
  writePrivate(layout.secrets, JSON.stringify(secrets));
  return secrets;
}

function configText(options: DevOptions, layout: Layout, pki: DevPki, storeUrl: string, redisUrl: string): string {
  return stringify({
    listen: options.listen,
    log: { level: "warn" },
    store: { url: storeUrl },
    redis: { url: redisUrl },
    kms: { provider: "file", file: layout.kmsKey, create: true },
    tls: {
      certificate: pki.server.certificate,
      key: pki.server.key,
      refuse: "explain",
      trust: [{ trust_domain: DEV_TRUST_DOMAIN, bundle: pki.ca }],
    },
    leases: { grace: "10s", sweep_interval: "1s" },
    drain: "5s",
    administrators: [`spiffe://${DEV_TRUST_DOMAIN}/admin`],
  });
}

/** What the CLI reads to find the running broker; paths are relative to the folder. */
function devFile(layout: Layout, pki: DevPki, address: string): object {
  const at = (path: string): string => relative(layout.root, path);
  const clients = Object.fromEntries(Object.entries(pki.clients).map(([name, identity]) => [name, { cert: at(identity.certificate), key: at(identity.key) }]));
  return { address, ca: at(pki.ca), clients, pid: process.pid };
}

function writePrivate(path: string, text: string): void {
  writeFileSync(`${path}.new`, text, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}
