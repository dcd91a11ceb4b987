import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { newLoginSuffix, newPassword } from "../../src/engines/generate.ts";
import { mysql } from "../../src/engines/mysql/definition.ts";
import { loginName } from "../../src/engines/names.ts";
import { clientOf, mysqlTarget, type MysqlServer, ROLE } from "../conformance/engine-mysql-setup.ts";
import { engineWorld, type EngineWorld, lifeOfALease } from "../support/engine-world.ts";

const PATH = "credentials/mysql/team/orders-with-a-long-name";
const GRANT = { privileges: ["SELECT", "INSERT"], schema: "app_a" };

describe("mysql engine", () => {
  let it_: MysqlServer;
  let world: EngineWorld;

  beforeAll(async () => {
    it_ = await mysqlTarget();
    world = await engineWorld("mysql");
  });
  afterAll(async () => {
    await world?.close();
    await it_?.server.stop();
  });

  const role = (more: object = {}): object => ({ kind: "Role", path: PATH, target: "orders", mysql: { database: "app_a", grants: [GRANT] }, ...more });

  it("a target and a role applied from a manifest issue a login that lives and ends with its lease", async () => {
    const { host, port, username } = it_.config;
    const target = {
      kind: "Target",
      name: "orders",
      mysql: { host, port, username, tlsMode: "TLS_MODE_DISABLE" },
      password: { text: it_.password.revealText() },
    };
    expect(await world.apply(target, role())).toEqual(["created", "created"]);
    expect(await world.apply({ ...target, password: undefined }, role())).toEqual(["unchanged", "unchanged"]);
    expect((await world.test("orders", PATH)).checks.filter((check) => !check.ok)).toEqual([]);
    await lifeOfALease(world, PATH, clientOf);
    await expect(world.apply(role({ maxTtl: "86401s" }))).rejects.toMatchObject({ reason: "REQUEST_INVALID" });
  });

  it("a lease reaches its schema and no other, and can't put off its end by taking the lock of its own name", async () => {
    const target = mysql.open(it_.config, it_.password, {
      clock: systemClock,
      instance: "test",
      connectTimeoutMs: 3000,
      statementTimeoutMs: 5000,
      maxConnections: 2,
    });
    const [name, password] = [loginName("test", PATH, newLoginSuffix(), { maxBytes: 32 }), newPassword()];
    const created = await target.create({ name, password, role: ROLE, validForMs: 60_000, deadlineAt: Date.now() + 60_000 });
    const session = await clientOf(created.connection, password);
    await session.query("SELECT * FROM app_a.t");
    await expect(session.query("SELECT * FROM appxa.t")).rejects.toMatchObject({ code: "ER_TABLEACCESS_DENIED_ERROR" });
    await session.query(`SELECT GET_LOCK('leasehold:${name}', 1)`);
    expect(await target.revoke({ name, oid: created.oid, systemIdentifier: created.systemIdentifier, ownedObjects: { kind: "refuse" } })).toBe("revoked");
    await session.ended;
    await target.close();
  });
});
