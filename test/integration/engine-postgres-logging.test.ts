import { readFileSync } from "node:fs";
import { inspect } from "node:util";
import type pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { NewLogin, Target } from "../../src/engines/engine.ts";
import { newLoginSuffix, newPassword } from "../../src/engines/generate.ts";
import { loginName } from "../../src/engines/names.ts";
import type { PostgresRoleConfig } from "../../src/engines/postgres/config.ts";
import { postgres } from "../../src/engines/postgres/definition.ts";
import { startCluster, type Cluster } from "../conformance/engine-clusters.ts";
import { bootstrapCluster, INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { OPTIONS } from "../conformance/engine.ts";

/** A server that logs whatever it can be told to log. */
const TALKATIVE = {
  shared_preload_libraries: "pg_stat_statements,auto_explain",
  log_statement: "all",
  log_min_duration_statement: "0",
  log_duration: "on",
  log_min_messages: "debug1",
  log_min_error_statement: "debug5",
  log_error_verbosity: "verbose",
  log_parameter_max_length: "-1",
  log_parameter_max_length_on_error: "-1",
  log_lock_waits: "on",
  deadlock_timeout: "50ms",
  "pg_stat_statements.track": "all",
  "auto_explain.log_min_duration": "0",
  "auto_explain.log_nested_statements": "on",
};

let cluster: Cluster;
let role: PostgresRoleConfig;
let target: Target<PostgresRoleConfig>;
let superuser: pg.Client;

beforeAll(async () => {
  cluster = await startCluster("18", TALKATIVE);
  superuser = await cluster.superuser();
  await superuser.query("CREATE EXTENSION pg_stat_statements");
  const made = await bootstrapCluster(cluster);
  role = made.role;
  target = postgres.open(made.config, made.password, { ...OPTIONS, instance: INSTANCE, statementTimeoutMs: 3000 });
}, 60_000);
afterAll(async () => {
  await superuser?.end();
  await target?.close();
  await cluster?.stop();
});

test("finding 25: no verifier or password reaches the server's log, pg_stat_statements or an error, however much the server logs", async () => {
  const errors: unknown[] = [];
  const secrets: string[] = [];
  const login = (change: Partial<NewLogin<PostgresRoleConfig>> = {}): NewLogin<PostgresRoleConfig> => {
    const password = newPassword();
    secrets.push(password.revealText());
    const name = loginName(INSTANCE, "credentials/postgres/rw", newLoginSuffix());
    return { name, password, role, validForMs: 60_000, deadlineAt: Date.now() + 60_000, ...change };
  };
  const failing = async (attempt: Promise<unknown>): Promise<void> => {
    const error: unknown = await attempt.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeDefined();
    errors.push(error);
  };

  const first = login();
  await target.create(first);
  await failing(target.create(login({ name: first.name }))); // taken
  await failing(target.create(login({ name: "postgres" })));
  await failing(target.create(login({ deadlineAt: 1 })));
  await failing(target.create(login({ role: { ...role, memberOf: ["nobody"] } })));
  await failing(target.create(login({ validForMs: -1 })));
  await superuser.query("BEGIN; LOCK TABLE pg_authid IN SHARE MODE");
  await failing(target.create(login())); // waits inside CREATE ROLE, which is then cancelled by lock_timeout
  const other = await cluster.superuser(); // pg_stat_activity stands still inside a transaction
  for (const how of ["pg_cancel_backend", "pg_terminate_backend"]) {
    const interrupted = failing(target.create(login()));
    const waiting = `SELECT count(${how}(pid))::int AS n FROM pg_stat_activity WHERE usename LIKE 'leasehold%' AND wait_event_type = 'Lock'`;
    await expect.poll(async () => (await other.query<{ n: number }>(waiting)).rows[0]?.n, { timeout: 5000 }).toBeGreaterThan(0);
    await interrupted; // inside CREATE ROLE
  }
  await other.end();
  await superuser.query("COMMIT");

  const log = readFileSync(cluster.logFile, "utf8");
  expect(log).toContain("pg_authid"); // it does log: the superuser's own statements are there
  const statements = (await superuser.query<{ query: string }>("SELECT query FROM pg_stat_statements")).rows.map((row) => row.query).join("\n");
  expect(statements).toContain("pg_stat_activity");
  for (const [where, text] of Object.entries({ log, statements, errors: inspect(errors, { depth: 10, showHidden: true }) })) {
    expect(text.includes("SCRAM-SHA-256$"), `a verifier in ${where}`).toBe(false);
    for (const secret of secrets) expect(text.includes(secret), `a password in ${where}`).toBe(false);
  }
  expect(statements).not.toContain("CREATE ROLE lh_"); // nor is pg_stat_statements flooded
}, 30_000);
