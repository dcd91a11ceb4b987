import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { Redis } from "ioredis";
import { createConnection } from "mysql2/promise";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CallError } from "../../src/client/errors.ts";
import { OperatorService, RoleSchema, TargetSchema } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { PolicySchema, PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { mysqlTarget } from "../conformance/engine-mysql-setup.ts";
import { redisTarget } from "../conformance/engine-redis-setup.ts";
import { APP, type Broker, leaseWorld, type LeaseWorld } from "../support/lease-world.ts";
import { until } from "../support/until.ts";

// `max_connections` is of all replicas together. (PostgreSQL, with 1,000 leases and a target that was down: lease-many.test.ts.)

const MOST_CONNECTIONS = 3;
const LEASES = 24;

/** A server to be a target, and what its administrator sees. */
interface Server {
  readonly target: JsonObject;
  readonly role: JsonObject;
  /** Connections of the broker's login now. */
  connections(): Promise<number>;
  /** Leased logins that are there. */
  logins(): Promise<number>;
  stop(): Promise<void>;
}

async function redisServer(): Promise<Server> {
  const server = await redisTarget();
  const { config, password, url } = server;
  const admin = new Redis(url);
  const { host, port, username } = config;
  return {
    target: { redis: { host, port, username, tlsMode: "TLS_MODE_DISABLE", maxConnections: MOST_CONNECTIONS }, password: { text: password.revealText() } },
    role: { redis: { rules: ["~app:*", "+get"] } },
    connections: async () => String(await admin.call("CLIENT", "LIST")).split(` user=${username} `).length - 1,
    logins: async () => ((await admin.call("ACL", "USERS")) as string[]).filter((name) => /^lh_.*_many_/.test(name)).length,
    stop: async () => {
      admin.disconnect();
      await server.stop();
    },
  };
}

async function mysqlServer(): Promise<Server> {
  const { server, config, password } = await mysqlTarget();
  const admin = await createConnection({ host: "127.0.0.1", port: server.port, user: "root" });
  const { host, port, username } = config;
  const count = async (sql: string, value: string): Promise<number> => {
    const [rows] = await admin.query(`select count(*) as n from ${sql} ?`, [value]);
    return (rows as { n: number }[])[0]!.n;
  };
  return {
    target: { mysql: { host, port, username, tlsMode: "TLS_MODE_DISABLE", maxConnections: MOST_CONNECTIONS }, password: { text: password.revealText() } },
    role: { mysql: { database: "app_a", grants: [{ privileges: ["SELECT"], schema: "app_a" }] } },
    connections: () => count("information_schema.processlist where user =", username),
    logins: () => count("mysql.user where user like", "lh\\_%\\_many\\_%"),
    stop: async () => {
      await admin.end();
      await server.stop();
    },
  };
}

let world: LeaseWorld;
let replicas: Broker[];

beforeAll(async () => {
  world = await leaseWorld();
  replicas = [await world.start(), await world.start()];
  const policy = { name: "many", principals: [APP], rules: [{ paths: ["credentials/**"], allow: ["issue", "renew"] }] };
  await replicas[0]!.as("admin").call(PolicyService.method.putPolicy, { policy: fromJson(PolicySchema, policy) });
});
afterAll(() => world?.close());

/** The most connections that were seen at a time, until told to end. */
function watchConnections(server: Server): () => Promise<number> {
  let most = 0;
  let over = false;
  const watching = (async () => {
    while (!over) most = Math.max(most, await server.connections());
  })();
  return async () => {
    over = true;
    await watching;
    return most;
  };
}

/** Asks again while every connection is in use, or when that took too long, as a client would. */
async function answered<T>(call: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof CallError) || !["TARGET_UNAVAILABLE", ""].includes(error.reason)) throw error;
      await new Promise(setImmediate);
    }
  }
}

for (const [engine, start] of [
  ["redis", redisServer],
  ["mysql", mysqlServer],
] as const) {
  test(
    `finding 28: two replicas share the ${MOST_CONNECTIONS} connections of a ${engine} target, while they issue, renew, revoke and let expire`,
    { timeout: 180_000 },
    async () => {
      const server = await start();
      const seen = watchConnections(server);
      try {
        const admin = replicas[0]!.as("admin");
        await admin.call(OperatorService.method.putTarget, { target: fromJson(TargetSchema, { name: engine, ...server.target }) });
        const path = `credentials/${engine}/many`;
        const role = { path, target: engine, defaultTtl: "600s", maxTtl: "600s", ...server.role };
        await admin.call(OperatorService.method.putRole, { role: fromJson(RoleSchema, role) });

        const app = (i: number) => replicas[i % replicas.length]!.as("app");
        const issued = await Promise.all(Array.from({ length: LEASES }, (_, i) => answered(() => app(i).issue(path))));
        expect(await server.logins()).toBeGreaterThanOrEqual(LEASES);
        const paths = issued.map((one) => one.lease!.path);
        await Promise.all(paths.map((each, i) => answered(() => app(i + 1).renew(each))));
        await Promise.all(paths.slice(0, LEASES / 2).map((each, i) => answered(() => app(i).revoke(each))));
        const left = async (): Promise<number> =>
          (
            await world.store.query<{ n: number }>("select count(*)::int as n from lease where path = $1 and state not in ('REVOKED', 'ROLLED_BACK')", [path])
          )[0]!.n;
        expect(await left()).toBeGreaterThanOrEqual(LEASES / 2);
        await world.shiftClock(1_000_000);
        await until("every lease to have ended", async () => (await left()) === 0, 60_000);
        expect(await server.logins()).toBe(0);
        const most = await seen();
        expect(most).toBeGreaterThan(0);
        expect(most).toBeLessThanOrEqual(MOST_CONNECTIONS);
      } finally {
        await seen();
        await world.shiftClock(0);
        await server.stop();
      }
    },
  );
}
