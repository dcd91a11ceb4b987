import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { OperatorService } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { type Broker, inState, leaseWorld, type LeaseWorld, login, logins, refusal, targetCluster } from "../support/lease-world.ts";
import type { TestCluster } from "../support/postgres.ts";
import { startProgram } from "../support/process.ts";
import { tempFolder } from "../support/temp.ts";

const BIN = resolve(import.meta.dirname, "../../bin/leasehold.mjs");

let world: LeaseWorld;
let broker: Broker;
let target: TestCluster;

beforeAll(async () => {
  [world, target] = await Promise.all([leaseWorld(), targetCluster()]);
  broker = await world.start();
  await world.addTarget(broker, "main", target);
  await target.query("create table account (id int)", [], "app");
});

afterAll(async () => {
  await world?.close();
  await target?.remove();
});

/** As a superuser does it. */
async function bootstrap(statements: string): Promise<{ readonly code: number | null; readonly stderr: string }> {
  const file = join(tempFolder("set"), "set.yaml");
  writeFileSync(file, statements);
  const { instance } = await broker.as("admin").call(OperatorService.method.getServerInfo, {});
  const args = ["target", "bootstrap", "--instance", instance, "--url", target.url("app"), "--statements", `direct=${file}`];
  const command = startProgram(process.execPath, [BIN, ...args]);
  const { code } = await command.ended;
  return { code, stderr: command.stderr() };
}

const postgres = { database: "app", scramIterations: 1000, statementSet: "direct" };
const testTarget = async (rolePath: string) =>
  (await broker.as("admin").call(OperatorService.method.testTarget, { path: "targets/main", rolePath })).checks.filter((check) => !check.ok);

test("from the superuser's file to a lease that has what it grants, and back", async () => {
  const path = await world.addRole(broker, "main/direct", "main", { postgres });
  const { role } = await broker.as("admin").call(OperatorService.method.getRole, { path });
  expect(role!.engine.value).toMatchObject({ statementSet: "direct", memberOf: [] });
  expect(await testTarget(path)).toEqual([expect.objectContaining({ name: "statement_set" })]);

  const connect = "GRANT CONNECT ON DATABASE app TO {{name}}";
  const [grant, revoke] = ["GRANT SELECT ON public.account TO {{name}}", "REVOKE ALL ON public.account FROM {{name}}"];
  const back = "REVOKE ALL ON DATABASE app FROM {{name}}";
  expect(await bootstrap(`create: ["${connect}", "${grant}"]\ndrop: ["${revoke}", "${back}"]\n`)).toEqual({ code: 0, stderr: "" });
  expect(await testTarget(path)).toEqual([]);

  const issued = await broker.as("app").issue(path);
  const session = await login(issued);
  expect((await session.client.query("select * from public.account")).rows).toEqual([]);
  await broker.as("app").revoke(issued.lease!.path);
  await inState(world, issued.lease!.path, "REVOKED");
  await session.ended;
  expect(await logins(target)).toEqual([]);

  expect((await bootstrap(`create: ["SELECT public.missing()"]\n`)).code).toBe(0);
  expect(await refusal(broker.as("app").issue(path))).toMatchObject({
    reason: "TARGET_MISCONFIGURED",
    metadata: { problem: "statement_failed", statement: "create 1: 42883" },
  });
  expect(await testTarget(path)).toEqual([expect.objectContaining({ name: "create", detail: expect.stringContaining("create 1: 42883") })]);
});

test("what can't be a set is refused before anything is done", async () => {
  const { code, stderr } = await bootstrap(`create: ["SELECT '{{password}}'"]\n`);
  expect([code, stderr]).toEqual([2, expect.stringContaining("create[0] has {{ that is neither {{name}} nor {{name_literal}}")]);
});

test("a role has a group or a set, and a set's name is one", async () => {
  expect(await refusal(world.addRole(broker, "main/none", "main", { postgres: { database: "app" } }))).toMatchObject({ reason: "REQUEST_INVALID" });
  expect(await refusal(world.addRole(broker, "main/odd", "main", { postgres: { ...postgres, statementSet: "no name" } }))).toMatchObject({
    violations: [expect.objectContaining({ field: expect.stringContaining("statement_set") })],
  });
});
