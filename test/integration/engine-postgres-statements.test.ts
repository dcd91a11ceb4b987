import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Sensitive } from "../../src/base/sensitive.ts";
import type { CreatedLogin, LoginRef, Target } from "../../src/engines/engine.ts";
import { newLoginSuffix, newPassword } from "../../src/engines/generate.ts";
import { loginName } from "../../src/engines/names.ts";
import { bootstrapPostgres } from "../../src/engines/postgres/bootstrap.ts";
import type { PostgresRoleConfig } from "../../src/engines/postgres/config.ts";
import { postgres } from "../../src/engines/postgres/definition.ts";
import { startCluster, VERSIONS, type Cluster } from "../conformance/engine-clusters.ts";
import { bootstrapCluster, BROKER, clientOf, INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { OPTIONS } from "../conformance/engine.ts";

const MINUTE = 60_000;
const REVOKE = "REVOKE ALL ON app.account FROM {{name}}";

for (const version of VERSIONS) {
  describe(`statement sets on PostgreSQL ${version}`, () => {
    let cluster: Cluster;
    let role: PostgresRoleConfig;
    let target: Target<PostgresRoleConfig>;
    let superuser: pg.Client;
    let broker: pg.Client;

    beforeAll(async () => {
      cluster = await startCluster(version);
      const made = await bootstrapCluster(cluster);
      role = { ...made.role, scramIterations: 1 };
      target = postgres.open(made.config, made.password, { ...OPTIONS, instance: INSTANCE });
      superuser = await cluster.superuser();
      await superuser.query(`CREATE SCHEMA app; CREATE TABLE app.account AS SELECT 1 AS id; CREATE TABLE app.member (login text PRIMARY KEY);
        CREATE ROLE app_member NOLOGIN; CREATE ROLE strong NOLOGIN CREATEROLE`);
      broker = await clientOf({ host: "127.0.0.1", port: String(cluster.port), database: "postgres", username: BROKER }, made.password);
    }, 60_000);
    afterAll(async () => {
      await broker?.end();
      await superuser?.end();
      await target?.close();
      await cluster?.stop();
    });

    const install = (name: string, create: readonly string[], drop: readonly string[] = []): Promise<void> =>
      bootstrapPostgres(superuser, {
        instance: INSTANCE,
        login: BROKER,
        verifier: undefined,
        allowedGroups: undefined,
        statementSets: [{ name, create, drop }],
      });

    async function issue(statementSet: string, enabled = true): Promise<{ ref: LoginRef; created: CreatedLogin; secret: Sensitive }> {
      const name = loginName(INSTANCE, "credentials/postgres/rw", newLoginSuffix());
      const secret = newPassword();
      const created = await target.create({
        name,
        password: secret,
        role: { ...role, statementSet },
        validForMs: MINUTE,
        deadlineAt: Date.now() + MINUTE,
        enabled,
      });
      return { created, secret, ref: { name, oid: created.oid, systemIdentifier: created.systemIdentifier, ownedObjects: { kind: "refuse" }, statementSet } };
    }

    const logins = async (): Promise<number> => (await superuser.query("SELECT FROM pg_roles WHERE rolname LIKE 'lh\\_test\\_rw%'")).rowCount!;
    const members = async (): Promise<string[]> => (await superuser.query<{ login: string }>("SELECT login FROM app.member")).rows.map((row) => row.login);

    test("a GRANT and a DO block run for the new login, and what takes them back runs before it is dropped", async () => {
      await install(
        "direct",
        [
          "GRANT USAGE ON SCHEMA app TO {{name}}",
          "GRANT SELECT ON app.account TO {{name}}",
          "DO $$ BEGIN IF true THEN INSERT INTO app.member VALUES ({{name_literal}}); END IF; END $$",
          "ALTER ROLE {{name}} SET search_path = 'app;x'",
        ],
        [REVOKE, "REVOKE USAGE ON SCHEMA app FROM {{name}}", "DELETE FROM app.member WHERE login = {{name_literal}}"],
      );
      const { ref, created, secret } = await issue("direct");
      expect(await members()).toEqual([ref.name]);
      const session = await clientOf(created.connection, secret);
      expect((await session.query("SELECT id FROM app.account")).rows).toEqual([{ id: 1 }]);
      expect((await session.query("SHOW search_path")).rows).toEqual([{ search_path: '"app;x"' }]);
      const ended = new Promise((resolve) => session.once("end", resolve));
      expect(await target.revoke(ref)).toBe("revoked");
      await ended;
      expect(await members()).toEqual([]);
      expect(await logins()).toBe(0);
      expect(await target.revoke(ref)).toBe("absent");
    });

    test("many at a time of one set, each with its own statements, among others without: no GRANT runs into another", async () => {
      const refs = await Promise.all(Array.from({ length: 60 }, async () => (await issue("direct")).ref));
      expect((await members()).toSorted()).toEqual(refs.map((ref) => ref.name).toSorted());
      const again = Array.from({ length: 20 }, () => issue("direct"));
      expect(new Set(await Promise.all(refs.map((ref) => target.revoke(ref))))).toEqual(new Set(["revoked"]));
      for (const { ref } of await Promise.all(again)) expect(await target.revoke(ref)).toBe("revoked");
      expect([await members(), await logins()]).toEqual([[], 0]);
    });

    test("a login of a warm pool has its statements run when it is made, and is enabled later", async () => {
      const { ref, created, secret } = await issue("direct", false);
      expect(await members()).toEqual([ref.name]);
      await expect(clientOf(created.connection, secret)).rejects.toThrow();
      await target.enable!(ref, MINUTE, Date.now() + MINUTE);
      await (await clientOf(created.connection, secret)).end();
      expect(await target.revoke(ref)).toBe("revoked");
    });

    test("of logins enabled together one whose deadline has passed sinks none that has longer", async () => {
      const [late, ...others] = await Promise.all([issue("direct", false), issue("direct", false), issue("direct", false)]);
      const deadlines = [Date.now() - MINUTE, Date.now() + MINUTE, Date.now() + MINUTE];
      const [refused, ...enabled] = await Promise.allSettled([late, ...others].map(({ ref }, i) => target.enable!(ref, MINUTE, deadlines[i]!)));
      expect(refused).toMatchObject({ status: "rejected", reason: { metadata: { problem: "deadline_passed" } } });
      expect(enabled.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled"]);
      for (const { created, secret } of others) await (await clientOf(created.connection, secret)).end();
      for (const { ref } of [late, ...others]) expect(await target.revoke(ref)).toBe("revoked");
    });

    test("a statement that fails creates nothing, says which it was, and none of its text", async () => {
      await install("broken", ["INSERT INTO app.member VALUES ({{name_literal}})", "GRANT SELECT ON app.missing TO {{name}}"]);
      const failed = await issue("broken").catch((error: unknown) => error);
      expect(failed).toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "statement_failed", statement: "create 2: 42P01" } });
      expect(String((failed as Error).cause)).not.toContain("missing");
      await install("broken", ["DO $$ BEGIN ASSERT false, 'no'; END $$"]);
      await expect(issue("broken")).rejects.toMatchObject({ metadata: { problem: "statement_failed", statement: "create 1: P0004" } });
      await install("broken", ["DO $$ BEGIN COMMIT; END $$"]);
      await expect(issue("broken")).rejects.toMatchObject({ metadata: { problem: "statement_failed" } });
      expect([await members(), await logins()]).toEqual([[], 0]);
    });

    test("a set that is not there", async () => {
      await expect(issue("nowhere")).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "statement_set_missing" } });
      const checks = await target.preflight({ ...role, statementSet: "nowhere" });
      expect(checks.at(-1)).toEqual({ name: "statement_set", ok: false, detail: expect.stringContaining("--statements nowhere=FILE") });
    });

    test.each([
      "ALTER ROLE {{name}} SUPERUSER",
      "ALTER ROLE {{name}} CREATEROLE",
      "ALTER ROLE {{name}} BYPASSRLS",
      "ALTER ROLE {{name}} VALID UNTIL 'infinity'",
      "ALTER ROLE {{name}} PASSWORD NULL",
      "ALTER ROLE {{name}} NOLOGIN",
      "ALTER ROLE {{name}} RENAME TO lh_test_rw_other",
      "DROP ROLE {{name}}",
      "GRANT strong TO {{name}}",
      "GRANT pg_execute_server_program TO {{name}}",
      "GRANT leasehold_owner TO {{name}}",
      "GRANT leasehold_broker_test TO {{name}}",
      "GRANT app_member TO {{name}} WITH ADMIN OPTION",
      "CREATE TEMPORARY TABLE mine (n int)",
    ])("the superuser's mistake %s is noticed, and nothing is made", async (statement) => {
      await install("mistake", [statement]);
      await expect(issue("mistake")).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "statement_refused" } });
      expect(await logins()).toBe(0);
    });

    test("a membership that a lease may have is fine", async () => {
      await install("member", ["GRANT app_member TO {{name}}"]);
      const { ref } = await issue("member");
      expect(await target.revoke(ref)).toBe("revoked");
    });

    test("a drop statement that fails leaves the login dead and its session ended; nothing of the set was done, and once it is mended the login goes", async () => {
      await install("stuck", ["INSERT INTO app.member VALUES ({{name_literal}})"], ["DELETE FROM app.member", "SELECT app.missing()"]);
      const { ref, created, secret } = await issue("stuck");
      const { ref: other } = await issue("direct");
      const session = await clientOf(created.connection, secret);
      const ended = new Promise((resolve) => session.once("end", resolve));
      const [failed, fine] = await Promise.allSettled([target.revoke(ref), target.revoke(other)]);
      expect(failed).toMatchObject({ status: "rejected", reason: { metadata: { problem: "statement_failed", statement: "drop 2: 42883" } } });
      expect(fine).toMatchObject({ status: "fulfilled", value: "revoked" });
      await ended;
      expect(await target.find(ref.name)).toEqual({ oid: ref.oid, canLogin: false });
      await expect(clientOf(created.connection, secret)).rejects.toThrow();
      expect(await members()).toEqual([ref.name]);
      await superuser.query("DELETE FROM leasehold.statement_set WHERE name = 'stuck'");
      await expect(target.revoke(ref)).rejects.toMatchObject({ metadata: { problem: "statement_set_missing" } });
      await install("stuck", [], ["DELETE FROM app.member WHERE login = {{name_literal}}", "DROP ROLE {{name}}"]);
      expect(await target.revoke(ref)).toBe("revoked");
      expect([await members(), await logins()]).toEqual([[], 0]);
    });

    test.each(["ALTER ROLE {{name}} LOGIN", "ALTER ROLE {{name}} RENAME TO lh_test_rw_other", "ALTER ROLE {{name}} SUPERUSER"])(
      "the drop statement %s brings no login back",
      async (statement) => {
        await install("revive", [], [statement]);
        const { ref } = await issue("revive");
        await expect(target.revoke(ref)).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED" });
        expect(await target.find(ref.name)).toEqual({ oid: ref.oid, canLogin: false });
        await install("revive", []);
        expect(await target.revoke(ref)).toBe("revoked");
      },
    );

    test("what create granted and drop leaves is an owned object: refused, or settled by the role, and the drop statements run once", async () => {
      await install("left", ["GRANT SELECT ON app.account TO {{name}}"], ["INSERT INTO app.member VALUES ({{name_literal}})"]);
      const { ref } = await issue("left");
      await expect(target.revoke(ref)).rejects.toMatchObject({ metadata: { problem: "owned_objects", databases: "postgres" } });
      expect(await members()).toEqual([]);
      expect(await target.revoke({ ...ref, ownedObjects: { kind: "drop" } })).toBe("revoked");
      expect(await members()).toEqual([ref.name]);
      await superuser.query("DELETE FROM app.member");
      const checks = await target.preflight({ ...role, statementSet: "left" });
      expect(checks.at(-1)).toEqual({ name: "drop", ok: false, detail: expect.stringContaining("drop statements") });
      const settled = await target.preflight({ ...role, statementSet: "left", ownedObjects: { kind: "drop" } });
      expect(settled.filter((check) => !check.ok)).toEqual([]);
      await superuser.query("DELETE FROM app.member");
      await superuser
        .query("SELECT format('DROP OWNED BY %I', rolname) AS q FROM pg_roles WHERE rolname LIKE 'lh\\_test\\_preflight%'")
        .then(async ({ rows }) => {
          for (const { q } of rows as { q: string }[]) await superuser.query(q);
        });
    });

    test("names are quoted in one pass: a name that is SQL stays a name, and what it holds is not looked through again", async () => {
      const fill = async (statement: string, name: string): Promise<string> =>
        (await superuser.query<{ q: string }>("SELECT leasehold.fill_in($1, $2) AS q", [statement, name])).rows[0]!.q;
      expect(await fill("GRANT a TO {{name}}", 'x"; DROP TABLE app.account; --')).toBe('GRANT a TO "x""; DROP TABLE app.account; --"');
      expect(await fill("SELECT {{name_literal}}, {{name}}", "x'y\\{{name}}")).toBe(`SELECT E'x''y\\\\{{name}}', "x'y\\{{name}}"`);
      expect(await fill("{{name}}{{name}}", "a")).toBe("aa");
      for (const name of ['lh_test_x"; DROP TABLE app.account', "lh_test_'", "postgres", "lh_other_x"]) {
        const made = broker.query(
          "SELECT leasehold.create_logins_of_set('test', ARRAY[$1], ARRAY[$2], ARRAY[1000], '{}', NULL, 9999999999999, true, 'direct')",
          [name, `SCRAM-SHA-256$1:${"A".repeat(22)}==$${"A".repeat(43)}=:${"A".repeat(43)}=`],
        );
        await expect(made).rejects.toMatchObject({ code: "LH006" });
      }
    });

    test("the broker can neither read nor write the sets, nor run one but for its own logins", async () => {
      await install("direct", ["SELECT 1"]);
      for (const statement of [
        "TABLE leasehold.statement_set",
        "INSERT INTO leasehold.statement_set VALUES ('test', 'mine', 'create', ARRAY['ALTER ROLE leasehold_test SUPERUSER'])",
        "UPDATE leasehold.statement_set SET statements = '{}'",
        "SELECT leasehold.setup_statement_set('test', 'mine', '{}', '{}')",
        "SELECT leasehold.run_statements('test', 'direct', 'create', 'lh_test_x')",
        "SELECT leasehold.statements_of('test', 'direct', 'create')",
        "SELECT leasehold.drop_login_of_set('other', 'lh_other_x', NULL, NULL, 'direct')",
        "SELECT leasehold.drop_login_of_set('test', 'postgres', NULL, NULL, 'direct')",
        "SELECT leasehold.has_statement_set('other', 'direct')",
        "DO $$ BEGIN LOCK TABLE leasehold.statement_set IN ACCESS SHARE MODE; END $$",
        "SELECT leasehold.lock_statements()",
      ]) {
        const outcome = await broker.query(statement).then(
          () => "allowed",
          (error: { code?: string }) => error.code,
        );
        expect(["42501", "LH006", "LH010"], `${statement} → ${outcome}`).toContain(outcome);
      }
    });

    test("no temporary table of the broker's stands in for one that a statement names without its schema", async () => {
      await install("careless", ["INSERT INTO member VALUES ({{name_literal}})"], ["INSERT INTO member VALUES ({{name_literal}})"]);
      await broker.query("CREATE TEMP TABLE member (login text)");
      await broker.query("CREATE FUNCTION pg_temp.rise() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN ALTER ROLE leasehold_test SUPERUSER; RETURN NEW; END'");
      await broker.query("CREATE TRIGGER rise BEFORE INSERT ON member FOR EACH ROW EXECUTE FUNCTION pg_temp.rise()");
      const values = ["lh_test_rw_rise", `SCRAM-SHA-256$1:${"A".repeat(22)}==$${"A".repeat(43)}=:${"A".repeat(43)}=`];
      const made = broker.query(
        "SELECT leasehold.create_logins_of_set('test', ARRAY[$1], ARRAY[$2], ARRAY[1000], '{}', NULL, 9999999999999, true, 'careless')",
        values,
      );
      await expect(made).rejects.toMatchObject({ code: "LH022" });
      expect((await superuser.query("SELECT rolsuper FROM pg_roles WHERE rolname = $1", [BROKER])).rows).toEqual([{ rolsuper: false }]);
    });

    test("what is refused when it is installed: by us before, and by the target's own function", async () => {
      for (const [name, statement, words] of [
        ["ok", "GRANT a TO {{ name }}", "neither {{name}} nor {{name_literal}}"],
        ["ok", "SELECT '{{password}}'", "neither {{name}} nor {{name_literal}}"],
        ["ok", "SELECT {{{{name}}name}}", "neither {{name}} nor {{name_literal}}"],
        ["ok", " \n", "is empty"],
        ["ok", "SET search_path = app", "SET LOCAL"],
        ["Not a name", "SELECT 1", "name"],
      ] as const) {
        await expect(install(name, [statement])).rejects.toThrow(words);
        await expect(install(name, [], [statement])).rejects.toThrow(words);
        await expect(superuser.query("SELECT leasehold.setup_statement_set('test', $1, ARRAY[$2], '{}')", [name, statement])).rejects.toThrow(/statement/);
      }
      await install("ok", ["SET LOCAL search_path = app", "INSERT INTO member VALUES ({{name_literal}})"], ["DELETE FROM app.member"]);
      const { ref } = await issue("ok");
      expect(await members()).toEqual([ref.name]);
      expect(await target.revoke(ref)).toBe("revoked");
    });
  });
}
