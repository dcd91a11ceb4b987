import { createConnection } from "mysql2/promise";
import { Sensitive } from "../../src/base/sensitive.ts";
import type { CreatedLogin } from "../../src/engines/engine.ts";
import type { MysqlRoleConfig, MysqlTargetConfig } from "../../src/engines/mysql/config.ts";
import { mysql } from "../../src/engines/mysql/definition.ts";
import { freshMariadb, type TestMariadb } from "../support/mariadb.ts";
import type { EngineUnderTest, LeasedSession } from "./engine.ts";

const BROKER = "leasehold_test";
const PASSWORD = "a-password-of-the-brokers-own";
export const ROLE: MysqlRoleConfig = { database: "app_a", grants: [{ privileges: ["SELECT", "INSERT"], schema: "app_a" }], hostPattern: "%" };

export interface MysqlServer {
  readonly server: TestMariadb;
  readonly config: MysqlTargetConfig;
  readonly password: Sensitive;
}

/** A server whose broker's account has no more than the rights that docs/engines.md names. `app_a` and `appxa` differ by what is a wildcard in GRANT. */
export async function mysqlTarget(): Promise<MysqlServer> {
  const server = await freshMariadb();
  await server.query(
    "CREATE DATABASE app_a",
    "CREATE DATABASE appxa",
    "CREATE TABLE app_a.t (x INT)",
    "CREATE TABLE appxa.t (x INT)",
    `CREATE USER ${BROKER} IDENTIFIED BY '${PASSWORD}'`,
    `GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO ${BROKER}`,
    `GRANT SELECT ON mysql.global_priv TO ${BROKER}`,
    `GRANT SELECT, INSERT ON \`app\\_a\`.* TO ${BROKER} WITH GRANT OPTION`,
  );
  const config: MysqlTargetConfig = { host: "127.0.0.1", port: server.port, username: BROKER, tls: { mode: "disable" } };
  return { server, config, password: Sensitive.text(PASSWORD) };
}

export async function mysqlUnderTest(): Promise<EngineUnderTest<MysqlTargetConfig, MysqlRoleConfig>> {
  const { server, config, password } = await mysqlTarget();
  return {
    engine: mysql,
    config,
    // TEST-NET-1 (RFC 5737): nothing answers there.
    unreachable: { ...config, host: "192.0.2.1" },
    password,
    instance: "test",
    role: ROLE,
    connect: clientOf,
    stop: () => server.stop(),
  };
}

/** An ordinary driver, as an application would use it. */
export async function clientOf(connection: CreatedLogin["connection"], password: Sensitive): Promise<LeasedSession & { query(sql: string): Promise<unknown> }> {
  const client = await createConnection({
    host: connection["host"]!,
    port: Number(connection["port"]),
    database: connection["database"]!,
    user: connection["username"]!,
    password: password.revealText(),
  });
  const ended = new Promise<void>((resolve) => {
    client.on("error", () => resolve());
    client.on("end", () => resolve());
  });
  return {
    ended,
    use: async () => void (await client.query("SELECT * FROM t")),
    query: (sql) => client.query(sql),
    close: () => client.end(),
  };
}
