import pg from "pg";
import type { Sensitive } from "../../src/base/sensitive.ts";
import type { CreatedLogin } from "../../src/engines/engine.ts";
import { newPassword } from "../../src/engines/generate.ts";
import { bootstrapPostgres, brokerVerifier } from "../../src/engines/postgres/bootstrap.ts";
import { DEFAULT_SCRAM_ITERATIONS, type PostgresRoleConfig, type PostgresTargetConfig } from "../../src/engines/postgres/config.ts";
import { postgres } from "../../src/engines/postgres/definition.ts";
import type { EngineUnderTest, LeasedSession } from "./engine.ts";
import type { Cluster } from "./engine-clusters.ts";

export const INSTANCE = "test";
export const BROKER = "leasehold_test";
export const GROUP = "app_rw";

/** A bootstrapped target whose broker is no superuser, with a group that may create tables in `public` of `postgres` and `other`. */
export async function bootstrapCluster(
  cluster: Cluster,
  password: Sensitive = newPassword(),
): Promise<{ password: Sensitive; config: PostgresTargetConfig; role: PostgresRoleConfig }> {
  const superuser = await cluster.superuser();
  await superuser.query(`CREATE ROLE ${GROUP} NOLOGIN`);
  await superuser.query("CREATE DATABASE other");
  await superuser.query("CREATE DATABASE unprepared");
  await bootstrapPostgres(superuser, { instance: INSTANCE, login: BROKER, verifier: await brokerVerifier(password), allowedGroups: [GROUP] });
  await superuser.end();
  for (const database of ["postgres", "other", "unprepared"]) {
    const there = await cluster.superuser(database);
    await there.query(`GRANT CREATE, USAGE ON SCHEMA public TO ${GROUP}`);
    if (database === "other") await bootstrapPostgres(there, { instance: INSTANCE, login: BROKER, verifier: undefined, allowedGroups: [GROUP] });
    await there.end();
  }
  return {
    password,
    config: { host: "127.0.0.1", port: cluster.port, database: "postgres", username: BROKER, tls: { mode: "disable" } },
    role: { database: "postgres", memberOf: [GROUP], scramIterations: DEFAULT_SCRAM_ITERATIONS, ownedObjects: { kind: "refuse" } },
  };
}

export async function postgresUnderTest(cluster: Cluster): Promise<EngineUnderTest<PostgresTargetConfig, PostgresRoleConfig>> {
  const { password, config, role } = await bootstrapCluster(cluster);
  return {
    engine: postgres,
    config,
    // TEST-NET-1 (RFC 5737): nothing answers there.
    unreachable: { ...config, host: "192.0.2.1" },
    password,
    instance: INSTANCE,
    role,
    connect: async (connection, secret) => sessionOf(await clientOf(connection, secret)),
    stop: () => cluster.stop(),
  };
}

/** An ordinary driver, as an application would use it. */
export async function clientOf(connection: CreatedLogin["connection"], password: Sensitive): Promise<pg.Client> {
  const client = new pg.Client({
    host: connection["host"]!,
    port: Number(connection["port"]),
    database: connection["database"]!,
    user: connection["username"]!,
    password: password.revealText(),
    ssl: false,
  });
  client.on("error", () => {});
  await client.connect();
  return client;
}

function sessionOf(client: pg.Client): LeasedSession {
  return {
    ended: new Promise((resolve) => client.once("end", () => resolve())),
    use: async () => void (await client.query("SELECT 1")),
    close: () => client.end(),
  };
}
