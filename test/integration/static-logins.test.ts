import { Redis } from "ioredis";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Sensitive } from "../../src/base/sensitive.ts";
import { newPassword } from "../../src/engines/generate.ts";
import { bootstrapPostgres } from "../../src/engines/postgres/bootstrap.ts";
import { PostgresTarget } from "../../src/engines/postgres/target.ts";
import { checkTargetConfig } from "../../src/engines/redis/config.ts";
import { RedisTarget } from "../../src/engines/redis/target.ts";
import type { PasswordChange, StaticLogins } from "../../src/engines/static-login.ts";
import { type Cluster, startCluster, VERSIONS } from "../conformance/engine-clusters.ts";
import { bootstrapCluster, BROKER, clientOf, GROUP, INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { redisTarget, type RedisServer } from "../conformance/engine-redis-setup.ts";
import { OPTIONS } from "../conformance/engine.ts";
import { until } from "../support/until.ts";

const ROTATION = "0b9a4c7e-6a0e-4c5e-9d86-6f6a2d1f0c11";
const OTHER = "1b9a4c7e-6a0e-4c5e-9d86-6f6a2d1f0c11";
const MINUTE = 60_000;
const problem = (name: string) => ({ metadata: { problem: name } });

function change(name: string, generation: number, more: Partial<PasswordChange> = {}): PasswordChange {
  return { login: { name }, password: newPassword(), keep: undefined, rotation: ROTATION, generation, deadlineAt: Date.now() + MINUTE, ...more };
}

for (const version of VERSIONS) {
  describe(`static logins on PostgreSQL ${version}`, () => {
    let cluster: Cluster;
    let superuser: pg.Client;
    let target: PostgresTarget;
    let logins: StaticLogins;
    const allow = (...allowedLogins: readonly string[]) =>
      bootstrapPostgres(superuser, { instance: INSTANCE, login: BROKER, verifier: undefined, allowedGroups: undefined, allowedLogins });

    beforeAll(async () => {
      cluster = await startCluster(version);
      const { config, password } = await bootstrapCluster(cluster);
      superuser = await cluster.superuser();
      await superuser.query(`CREATE ROLE app LOGIN; CREATE ROLE twin LOGIN IN ROLE ${GROUP}; CREATE ROLE bystander LOGIN; CREATE ROLE boss LOGIN CREATEROLE`);
      target = new PostgresTarget(config, password, { ...OPTIONS, instance: INSTANCE });
      logins = target.staticLogins;
      await allow("app", "twin");
    });
    afterAll(async () => {
      await superuser?.end();
      await target?.close();
      await cluster?.stop();
    });

    it("sets an allowed login's password, again and again, and tries it by a real login", async () => {
      const first = change("app", 1);
      await logins.setPassword(first);
      await logins.setPassword(first);
      await logins.tryLogin("app", first.password);
      await logins.tryLogin("app", first.password, "other");
      await expect(logins.tryLogin("app", newPassword())).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", ...problem("authentication_failed") });
      const { rows } = await superuser.query("SELECT rolpassword LIKE 'SCRAM-SHA-256$4096:%' AS scram FROM pg_authid WHERE rolname = 'app'");
      expect(rows).toEqual([{ scram: true }]);
    });

    it("finding 18: an older generation, or one that comes after its deadline, sets nothing", async () => {
      const newest = change("app", 10);
      await logins.setPassword(newest);
      await expect(logins.setPassword(change("app", 9))).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", ...problem("generation_passed") });
      await expect(logins.setPassword(change("app", 11, { deadlineAt: Date.now() - 1000 }))).rejects.toMatchObject({
        reason: "TARGET_UNAVAILABLE",
        ...problem("deadline_passed"),
      });
      await expect(logins.setPassword(change("app", 0))).rejects.toMatchObject(problem("malformed"));
      await logins.tryLogin("app", newest.password);
    });

    it("finding 18: a change that waited on the target while a newer one was made finds itself overtaken", async () => {
      await superuser.query("BEGIN; SELECT FROM leasehold.static_login WHERE role = 'app'::regrole FOR UPDATE");
      const [old, late] = [change("app", 20), change("app", 21, { deadlineAt: Date.now() + 500 })];
      const outcomes = Promise.allSettled([logins.setPassword(old), logins.setPassword(late)]);
      await until("both to wait", async () => {
        const { rows } = await superuser.query("SELECT count(*)::int AS n FROM pg_locks WHERE NOT granted");
        return rows[0].n === 2;
      });
      await until(
        "the deadline",
        async () => (await superuser.query("SELECT clock_timestamp() > to_timestamp($1 / 1000.0) AS over", [late.deadlineAt])).rows[0].over,
      );
      await superuser.query("UPDATE leasehold.static_login SET generation = 22, set_at = clock_timestamp() WHERE role = 'app'::regrole; COMMIT");
      const [first, second] = await outcomes;
      expect(first).toMatchObject({ status: "rejected", reason: problem("generation_passed") });
      expect(second).toMatchObject({ status: "rejected", reason: problem("deadline_passed") });
    });

    it("refuses who is not on the list, is gone, is powerful, or is the broker's own", async () => {
      await expect(logins.setPassword(change("bystander", 1))).rejects.toMatchObject(problem("login_not_allowed"));
      await expect(logins.setPassword(change("nobody_here", 1))).rejects.toMatchObject(problem("login_missing"));
      for (const name of ["postgres", "boss", BROKER, "leasehold_owner", `leasehold_broker_${INSTANCE}`])
        await expect(logins.setPassword(change(name, 1)), name).rejects.toMatchObject(problem("role_protected"));
      for (const power of ["pg_monitor", "boss", "postgres", `leasehold_broker_${INSTANCE}`]) {
        await superuser.query(`GRANT ${power} TO twin`);
        await expect(logins.setPassword(change("twin", 1)), power).rejects.toMatchObject(problem("role_protected"));
        expect(await logins.check([{ name: "twin" }])).toMatchObject([{ ok: false }]);
        await superuser.query(`REVOKE ${power} FROM twin`);
      }
      for (const name of ["boss", BROKER, "nobody_here", "postgres"])
        await expect(allow("app", "twin", name)).rejects.toMatchObject(problem("bootstrap_refused"));
      // A refused list changed nothing.
      expect((await logins.check([{ name: "app" }, { name: "twin" }])).map((check) => check.ok)).toEqual([true, true]);
    });

    it("a login with an owner must be its member, and the owner no login", async () => {
      await logins.setPassword(change("twin", 1, { login: { name: "twin", owner: GROUP } }));
      await expect(logins.setPassword(change("app", 30, { login: { name: "app", owner: GROUP } }))).rejects.toMatchObject(problem("login_not_a_member"));
      await superuser.query("GRANT bystander TO twin");
      await expect(logins.setPassword(change("twin", 2, { login: { name: "twin", owner: "bystander" } }))).rejects.toMatchObject(problem("login_not_a_member"));
      await superuser.query("REVOKE bystander FROM twin");
    });

    it("a login that is made anew under an allowed name is not allowed", async () => {
      await superuser.query("CREATE ROLE shortlived LOGIN");
      await allow("app", "twin", "shortlived");
      await superuser.query("DROP ROLE shortlived; CREATE ROLE shortlived LOGIN");
      await expect(logins.setPassword(change("shortlived", 1))).rejects.toMatchObject(problem("login_not_allowed"));
      await allow("app", "twin");
    });

    it("the fence stays with the list, and is for two minutes: then a restored ledger or another rotation goes on", async () => {
      await logins.setPassword(change("twin", 50));
      await allow("app", "twin");
      await expect(logins.setPassword(change("twin", 49))).rejects.toMatchObject(problem("generation_passed"));
      await expect(logins.setPassword(change("twin", 51, { rotation: OTHER }))).rejects.toMatchObject({
        reason: "TARGET_UNAVAILABLE",
        ...problem("other_rotation"),
      });
      await expect(logins.setPassword(change("twin", 51, { deadlineAt: Date.now() + 3 * MINUTE }))).rejects.toMatchObject(problem("malformed"));
      const later = "UPDATE leasehold.static_login SET set_at = set_at - interval '2 minutes' WHERE role = 'twin'::regrole";
      await superuser.query(later);
      await logins.setPassword(change("twin", 1));
      await superuser.query(later);
      await logins.setPassword(change("twin", 1, { rotation: OTHER }));
    });

    it("the broker's login can't get at the list or the fence", async () => {
      const { config, password } = await refreshed();
      const broker = await clientOf({ host: "127.0.0.1", port: String(cluster.port), database: "postgres", username: config }, password);
      for (const statement of [
        "TABLE leasehold.static_login",
        "SELECT leasehold.setup_static_logins('test', ARRAY['postgres'])",
        "UPDATE leasehold.static_login SET generation = 0",
      ])
        await expect(broker.query(statement), statement).rejects.toMatchObject({ code: "42501" });
      await expect(broker.query("SELECT * FROM leasehold.problem_static_logins('other', ARRAY['app'], NULL)")).rejects.toMatchObject({ code: "LH010" });
      await broker.end();
    });

    async function refreshed(): Promise<{ config: string; password: Sensitive }> {
      const password = newPassword();
      const { brokerVerifier } = await import("../../src/engines/postgres/bootstrap.ts");
      await superuser.query(`ALTER ROLE ${BROKER} PASSWORD '${await brokerVerifier(password)}'`);
      return { config: BROKER, password };
    }
  });
}

describe("static logins on Redis", () => {
  let server: RedisServer;
  let admin: Redis;
  let target: RedisTarget;
  let logins: StaticLogins;
  const hashes = async (): Promise<number> =>
    ((await admin.call("ACL", "LIST")) as string[]).find((line) => line.startsWith("user app "))!.split("#").length - 1;

  beforeAll(async () => {
    server = await redisTarget();
    admin = new Redis(server.url);
    await admin.call("ACL", "SETUSER", "app", "on", ">first", "~app:*", "+@read");
    await admin.call("ACL", "SETUSER", "bystander", "on", ">x");
    target = new RedisTarget({ ...server.config, allowLogins: ["app", "gone"] }, server.password, { ...OPTIONS, instance: INSTANCE });
    logins = target.staticLogins;
  });
  afterAll(async () => {
    await target?.close();
    admin?.disconnect();
    await server?.stop();
  });

  it("adds a password; the ones to keep work on, the others end; rights and sessions stay", async () => {
    const session = new Redis(Number(new URL(server.url).port), "127.0.0.1", { username: "app", password: "first" });
    await session.get("app:x");
    const [first, second, third] = [change("app", 1), change("app", 2), change("app", 3)];
    await logins.setPassword(first);
    await logins.setPassword(first);
    await logins.tryLogin("app", Sensitive.text("first"));
    await logins.tryLogin("app", first.password);
    await logins.setPassword({ ...second, keep: [first.password] });
    expect(await hashes()).toBe(2);
    await expect(logins.tryLogin("app", Sensitive.text("first"))).rejects.toMatchObject(problem("authentication_failed"));
    await logins.setPassword({ ...third, keep: [] });
    expect(await hashes()).toBe(1);
    await logins.tryLogin("app", third.password);
    await session.get("app:x");
    session.disconnect();
  });

  it("finding 18: an older generation, or one that comes after its deadline, sets nothing", async () => {
    await logins.setPassword(change("app", 10));
    const before = await hashes();
    await expect(logins.setPassword(change("app", 11, { rotation: OTHER }))).rejects.toMatchObject(problem("other_rotation"));
    await expect(logins.setPassword(change("app", 9))).rejects.toMatchObject(problem("generation_passed"));
    await expect(logins.setPassword(change("app", 11, { deadlineAt: Date.now() - 1000 }))).rejects.toMatchObject(problem("deadline_passed"));
    expect(await hashes()).toBe(before);
  });

  it("touches nobody who is not allowed, and makes nobody", async () => {
    for (const [name, word] of [
      ["bystander", "login_not_allowed"],
      ["default", "role_protected"],
      [server.config.username, "role_protected"],
      ["lh_test_x", "role_protected"],
      ["gone", "login_missing"],
    ] as const)
      await expect(logins.setPassword(change(name, 1)), name).rejects.toMatchObject(problem(word));
    expect(await admin.call("ACL", "GETUSER", "gone")).toBeNull();
    expect((await logins.check([{ name: "app" }, { name: "gone" }, { name: "bystander" }])).map((check) => check.ok)).toEqual([true, false, false]);
    for (const name of ["default", "leasehold_test", "lh_x", "a b", ""])
      expect(checkTargetConfig({ ...server.config, allowLogins: ["app", name] }), name).toMatchObject([{ field: "allow_logins[1]" }]);
  });
});
