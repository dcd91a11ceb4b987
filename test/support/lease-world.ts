import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { Client as Channel, credentials } from "@grpc/grpc-js";
import pg from "pg";
import { onTestFinished } from "vitest";
import { stringify } from "yaml";
import { startApp } from "../../src/app.ts";
import { Sensitive } from "../../src/base/sensitive.ts";
import { Client } from "../../src/client/client.ts";
import { CallError } from "../../src/client/errors.ts";
import { parseConfig } from "../../src/config.ts";
import { bootstrapPostgres, brokerVerifier } from "../../src/engines/registry.ts";
import type { IssueCredentialResponse } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import type { Lease_State } from "../../src/gen/leasehold/v1/lease_pb.ts";
import { OperatorService, RoleSchema, TargetSchema } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { PolicySchema, PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { type Event, WatchService } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import { Caller } from "./caller.ts";
import { compileCache } from "./compile-cache.ts";
import { bundle, identity, type LeafName, writeIdentity } from "./pki.ts";
import { freshCluster, freshDatabase, type TestCluster, type TestDatabase } from "./postgres.ts";
import { type Program, startProgram } from "./process.ts";
import { tempFolder } from "./temp.ts";
import { until } from "./until.ts";

export const APP = "spiffe://acme.test/ns/payments/sa/app";
export const OTHER = "spiffe://acme.test/ns/billing/sa/app";
export const GROUP = "readers";
export const BROKER_LOGIN = "leasehold_broker";
export const DATABASE = "app";

export interface Broker {
  readonly address: string;
  as(name: LeafName): Caller;
  /** Events of a watch from now on, as they come; nothing is missed of what happens once this has settled. */
  watch(name: LeafName, paths: readonly string[]): Promise<Event[]>;
  stop(): Promise<void>;
}

/** A broker in a process of its own, to be killed. */
export interface ChildBroker extends Broker {
  readonly program: Program;
}

export interface LeaseWorldOptions {
  /** Empty: no Redis. */
  readonly redisUrl?: string;
  readonly sweep?: string;
  readonly grace?: string;
  /** Environment of a broker in this process; empty by default. */
  readonly env?: NodeJS.ProcessEnv;
}

export interface LeaseWorld {
  readonly store: Pick<TestDatabase, "query">;
  /** Starts another broker on the same store. */
  start(options?: LeaseWorldOptions): Promise<Broker>;
  spawn(options?: LeaseWorldOptions, crash?: Readonly<Record<string, string>>): Promise<ChildBroker>;
  /** Bootstraps a server and makes it a target with one role, `credentials/postgres/<name>/ro` (TTL 60 s, at most 600 s). Idempotent. */
  addTarget(broker: Broker, name: string, cluster: TargetServer): Promise<string>;
  /** Another role of a target there is, `credentials/postgres/<name>`. @param more fields of the role in ProtoJSON. */
  addRole(broker: Broker, name: string, target: string, more?: Readonly<Record<string, unknown>>): Promise<string>;
  /** Moves the database's clock, for the ledger alone, this far from the real one. */
  shiftClock(ms: number): Promise<void>;
  row(leasePath: string): Promise<LeaseRow>;
  /** Actions in the audit that name this lease, in order of writing; `outcome` ok only. */
  audited(leasePath: string): Promise<string[]>;
  /** Types of the change log's events about a lease, in order. */
  events(leasePath: string): Promise<number[]>;
  close(): Promise<void>;
}

/** Where a target is, and its superuser's way in. */
export type TargetServer = Pick<TestCluster, "host" | "port" | "url">;

export interface LeaseRow {
  readonly state: string;
  readonly username: string;
  readonly end_cause: string | null;
  readonly attempts: number;
  readonly stalled: boolean;
  readonly problem: string | null;
  readonly renewing_to: Date | null;
  readonly expire_at: Date;
  readonly next_action_at: Date | null;
  readonly delivered: boolean;
}

/** A store with the PKI and policy that lease tests need; brokers and targets are added to it. @param storeCluster where the run's shared PostgreSQL won't do: to be stopped and killed. */
export async function leaseWorld(defaults: LeaseWorldOptions = {}, storeCluster?: TestCluster): Promise<LeaseWorld> {
  const store = storeCluster === undefined ? await freshDatabase("migrated") : await databaseOn(storeCluster);
  const folder = tempFolder("leases");
  const server = writeIdentity(folder, "server", await identity("server"));
  const ca = join(folder, "ca.pem");
  writeFileSync(ca, await bundle("acme"));
  const running = new Set<Broker>();
  const callers = new Set<Caller>();
  const passwords = new Map<TargetServer, string>();
  const watches = new Set<Client>();
  // Made beforehand, so that `as` need not wait.
  const names = ["admin", "app", "otherApp"] as const;
  const identities = new Map(await Promise.all(names.map(async (name) => [name as LeafName, await identity(name)] as const)));
  const caPem = Buffer.from(await bundle("acme"));

  const configText = (options: LeaseWorldOptions, level: string): string => {
    const { redisUrl = "", sweep = "200ms", grace = "10s" } = { ...defaults, ...options };
    return stringify({
      listen: "127.0.0.1:0",
      log: { level },
      store: { url: store.url, allow_no_fsync: true },
      redis: { url: redisUrl },
      kms: { provider: "file", file: join(folder, "kms.key"), create: true },
      tls: { certificate: server.certificate, key: server.key, refuse: "handshake", trust: [{ trust_domain: "acme.test", bundle: ca }] },
      leases: { grace, sweep_interval: sweep },
      drain: "2s",
      administrators: ["spiffe://acme.test/admin"],
    });
  };

  const callersOf = (address: string): Broker["as"] => {
    const known = new Map<LeafName, Caller>();
    return (name) => {
      const found = known.get(name);
      if (found !== undefined) return found;
      const own = identities.get(name)!;
      const ssl = credentials.createSsl(caPem, Buffer.from(own.keyPem), Buffer.from(own.certificatePem));
      const caller = new Caller(
        new Channel(address, ssl, {
          "grpc.ssl_target_name_override": "localhost",
          "grpc.initial_reconnect_backoff_ms": 100,
          "grpc.max_reconnect_backoff_ms": 300,
        }),
      );
      known.set(name, caller);
      callers.add(caller);
      return caller;
    };
  };

  const watchOf =
    (address: string): Broker["watch"] =>
    async (name, paths) => {
      const { certificatePem: certificate, keyPem: key } = identities.get(name)!;
      const client = new Client({ address, certificate, key, ca: caPem.toString(), serverName: "localhost" });
      watches.add(client);
      const events: Event[] = [];
      const started = Promise.withResolvers<void>();
      const follow = async (): Promise<void> => {
        for await (const message of client.stream(WatchService.method.watch, { paths: [...paths] })) {
          started.resolve(); // the first message says where the watch begins
          events.push(...message.events);
        }
      };
      follow().catch(started.reject);
      await started.promise;
      return events;
    };

  async function putPolicies(broker: Broker): Promise<void> {
    const policy = {
      name: "app",
      principals: [APP],
      rules: [
        { paths: ["credentials/postgres/**"], allow: ["issue", "renew", "watch"] },
        { paths: ["leases/**"], allow: ["watch"] },
      ],
    };
    await broker.as("admin").call(PolicyService.method.putPolicy, { policy: fromJson(PolicySchema, policy as unknown as JsonObject) });
  }

  const world: LeaseWorld = {
    store,
    async start(options = {}) {
      const app = await startApp(parseConfig(configText(options, process.env["LEASE_LOG"] ?? "silent"), {}, folder), options.env ?? {});
      const broker: Broker = { address: app.address, as: callersOf(app.address), watch: watchOf(app.address), stop: () => app.stop() };
      running.add(broker);
      await putPolicies(broker);
      return broker;
    },
    async spawn(options = {}, crash) {
      const file = join(folder, `config-${randomBytes(4).toString("hex")}.yaml`);
      writeFileSync(file, configText(options, "info"));
      const main = [join(import.meta.dirname, "../../src/main.ts"), "server", "--config", file];
      const preload = crash === undefined ? [] : ["--import", join(import.meta.dirname, "crash-at.ts")];
      const env = { NODE_COMPILE_CACHE: await compileCache(), ...(crash === undefined ? {} : { LEASEHOLD_FAULT_POINTS: "1", ...crash }) };
      const program = startProgram(process.execPath, [...preload, ...main], { keep: true, env });
      const broker: ChildBroker = { address: "", as: () => never(), watch: () => never(), program, stop: () => program.killTree() };
      running.add(broker);
      const [, address] = await program.says(/"address":"([^"]+)"/).catch(async (error: unknown) => {
        await program.killTree();
        throw error;
      });
      return Object.assign(broker, { address: address!, as: callersOf(address!), watch: watchOf(address!) });
    },
    async addTarget(broker, name, cluster) {
      // One login a server, so one password too: another would lock the first target out.
      const password = passwords.get(cluster) ?? randomBytes(16).toString("hex");
      passwords.set(cluster, password);
      const { instance } = await broker.as("admin").call(OperatorService.method.getServerInfo, {});
      await bootstrap(cluster, instance, password);
      const target = {
        name,
        postgres: { host: cluster.host, port: cluster.port, database: DATABASE, username: BROKER_LOGIN, tlsMode: "TLS_MODE_DISABLE" },
        password: { text: password },
      };
      await broker.as("admin").call(OperatorService.method.putTarget, { target: fromJson(TargetSchema, target) });
      return world.addRole(broker, `${name}/ro`, name);
    },
    async addRole(broker, name, target, more = {}) {
      const path = `credentials/postgres/${name}`;
      const postgres = { database: DATABASE, memberOf: [GROUP], scramIterations: 1000 };
      const role = fromJson(RoleSchema, { path, target, defaultTtl: "60s", maxTtl: "600s", postgres, ...more });
      await broker.as("admin").call(OperatorService.method.putRole, { role });
      return path;
    },
    shiftClock: async (ms) => {
      const body = `select date_trunc('milliseconds', clock_timestamp()) + interval '${ms} ms'`;
      await store.query(`create or replace function leasehold_now() returns timestamptz language sql volatile parallel safe as $$ ${body} $$`);
    },
    async row(leasePath) {
      const [row] = await store.query<LeaseRow>(
        "select state, username, end_cause, attempts, stalled, problem, renewing_to, expire_at, next_action_at, delivered from lease where id = $1",
        [idOf(leasePath)],
      );
      return row!;
    },
    async audited(leasePath) {
      // Lease ids are fingerprints in the audit: the one of this lease stands in the record of its LEASE_ISSUED event.
      const rows = await store.query<{ action: string }>(
        `select r.record->>'action' as action from audit_record r where r.record->>'outcome' = 'ok' and r.record->>'lease' = (
           select i.record->>'lease' from audit_record i join change_log c on (i.record->>'revision')::bigint = c.revision where c.lease_id = $1 and c.type = 20)
         order by r.record->>'at', chain, seq`,
        [idOf(leasePath)],
      );
      return rows.map((row) => row.action);
    },
    async events(leasePath) {
      const rows = await store.query<{ type: number }>("select type from change_log where lease_id = $1 order by revision", [idOf(leasePath)]);
      return rows.map((row) => row.type);
    },
    async close() {
      for (const one of [...callers, ...watches]) one.close();
      await Promise.all([...running].map((broker) => broker.stop()));
      await store.drop();
    },
  };
  return world;
}

/** An empty database of a login that is no superuser. */
async function databaseOn(cluster: TestCluster): Promise<Pick<TestDatabase, "url" | "query" | "drop">> {
  const password = randomBytes(16).toString("hex");
  await cluster.query(`create role store_owner login password '${password}'`);
  await cluster.query("create database store owner store_owner");
  return {
    url: `postgres://store_owner:${password}@${cluster.host}:${cluster.port}/store`,
    query: (sql, values) => cluster.query(sql, values, "store"),
    drop: () => Promise.resolve(),
  };
}

function never(): never {
  throw new Error("this broker is not serving yet");
}

export function idOf(leasePath: string): string {
  return leasePath.slice("leases/".length);
}

/** A server to be a target: with a database and a group whose members may connect to it. */
export async function targetCluster(settings: Readonly<Record<string, string>> = {}): Promise<TestCluster> {
  const cluster = await freshCluster(settings);
  await cluster.query(`create database ${DATABASE}`);
  await cluster.query(`create role ${GROUP} nologin`);
  await cluster.query(`revoke all on database ${DATABASE} from public`);
  await cluster.query(`grant connect on database ${DATABASE} to ${GROUP}`);
  return cluster;
}

export async function bootstrap(cluster: TargetServer, instance: string, password: string): Promise<void> {
  const client = new pg.Client(cluster.url(DATABASE));
  client.on("error", () => {});
  await client.connect();
  try {
    await bootstrapPostgres(client, { instance, login: BROKER_LOGIN, verifier: await brokerVerifier(Sensitive.text(password)), allowedGroups: [GROUP] });
  } finally {
    await client.end();
  }
}

/** What was issued, as text. */
export function dataOf(issued: IssueCredentialResponse): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(issued.data).map(([name, value]) => [name, value.kind.case === "text" ? value.kind.value : ""]));
}

export interface Session {
  readonly client: pg.Client;
  /** Settles when the server ended it. */
  readonly ended: Promise<void>;
}

/** Logs in with a leased credential. Throws what PostgreSQL says. */
export async function login(issued: IssueCredentialResponse): Promise<Session> {
  const { host, port, database, username, password } = dataOf(issued);
  const client = new pg.Client({ host: host!, port: Number(port), database: database!, user: username!, password: password!, ssl: false });
  const ended = new Promise<void>((resolve) => client.on("end", resolve).on("error", () => resolve()));
  await client.connect();
  return { client, ended };
}

/** Whether a leased credential lets in. */
export async function works(issued: IssueCredentialResponse): Promise<boolean> {
  try {
    const { client } = await login(issued);
    await client.end();
    return true;
  } catch (error) {
    if (["28P01", "28000", "42501"].includes((error as { code?: string }).code ?? "")) return false;
    throw error;
  }
}

/** Nobody's login can be made, changed or dropped on this server until `release`, or the test's end. Logging in still works. */
export async function hold(cluster: TestCluster): Promise<{ release(): Promise<void> }> {
  const client = new pg.Client(cluster.url());
  client.on("error", () => {});
  await client.connect();
  await client.query("begin");
  await client.query("lock table pg_authid in share mode");
  const release = (): Promise<void> => client.end();
  onTestFinished(release);
  return { release };
}

/** Names of the leased logins on a target. */
export async function logins(cluster: Pick<TestCluster, "query">): Promise<string[]> {
  const rows = await cluster.query<{ rolname: string }>(
    "select rolname from pg_roles where rolname like 'lh\\_%' and rolname not like 'lh\\_w\\_%' order by 1",
  );
  return rows.map((row) => row.rolname);
}

/** Waits until a lease is in this state, as the owner of everything sees it. */
export function inState(world: LeaseWorld, leasePath: string, state: keyof typeof Lease_State, limitMs?: number): Promise<LeaseRow> {
  return until(
    `${leasePath} to be ${state}`,
    async () => {
      const row = await world.row(leasePath);
      return row?.state === state ? row : undefined;
    },
    limitMs,
  );
}

/** The reason with which a call was refused; fails when it was not. */
export async function refusal(call: Promise<unknown>): Promise<CallError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof CallError) return error;
    throw error;
  }
  throw new Error("the call was not refused");
}
