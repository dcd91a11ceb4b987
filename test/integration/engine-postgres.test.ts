import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Sensitive } from "../../src/base/sensitive.ts";
import type { CreatedLogin, LoginRef, NewLogin, Target } from "../../src/engines/engine.ts";
import { newLoginSuffix, newPassword } from "../../src/engines/generate.ts";
import { loginName } from "../../src/engines/names.ts";
import { bootstrapPostgres, brokerVerifier } from "../../src/engines/postgres/bootstrap.ts";
import type { PostgresRoleConfig, PostgresTargetConfig } from "../../src/engines/postgres/config.ts";
import { postgres } from "../../src/engines/postgres/definition.ts";
import { startCluster, VERSIONS, type Cluster } from "../conformance/engine-clusters.ts";
import { bootstrapCluster, BROKER, clientOf, GROUP, INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { OPTIONS } from "../conformance/engine.ts";

const MINUTE = 60_000;

for (const version of VERSIONS) {
  describe(`the PostgreSQL engine on ${version}`, () => {
    let cluster: Cluster;
    let config: PostgresTargetConfig;
    let role: PostgresRoleConfig;
    let password: Sensitive;
    let target: Target<PostgresRoleConfig>;
    let superuser: pg.Client;

    beforeAll(async () => {
      cluster = await startCluster(version);
      ({ config, role, password } = await bootstrapCluster(cluster));
      target = postgres.open(config, password, { ...OPTIONS, instance: INSTANCE });
      superuser = await cluster.superuser();
    }, 60_000);
    afterAll(async () => {
      await superuser?.end();
      await target?.close();
      await cluster?.stop();
    });

    const newName = (): string => loginName(INSTANCE, "credentials/postgres/rw", newLoginSuffix());

    async function issue(change: Partial<NewLogin<PostgresRoleConfig>> = {}): Promise<{ ref: LoginRef; created: CreatedLogin; secret: Sensitive }> {
      const secret = newPassword();
      const login = {
        name: newName(),
        password: secret,
        role: { ...role, scramIterations: 1 },
        validForMs: MINUTE,
        deadlineAt: Date.now() + MINUTE,
        ...change,
      };
      const created = await target.create(login);
      return { created, secret, ref: { name: login.name, oid: created.oid, systemIdentifier: created.systemIdentifier, ownedObjects: { kind: "refuse" } } };
    }

    test("finding 1: the broker needs no attribute, and neither it nor the functions' owner joins the roles they make", async () => {
      const { ref } = await issue();
      const broker = await superuser.query(
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls AS any FROM pg_roles WHERE rolname = $1",
        [BROKER],
      );
      expect(broker.rows).toEqual([{ any: false }]);
      const members = await superuser.query("SELECT count(*)::int AS n FROM pg_auth_members WHERE roleid = $1", [ref.oid]);
      expect(members.rows).toEqual([{ n: 0 }]);
      const owner = await superuser.query("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'leasehold_owner'");
      expect(owner.rows).toEqual([{ rolcanlogin: false }]);
      await target.revoke(ref);
    });

    test("A3: the broker's login can do nothing on the target but call the functions", async () => {
      const broker = await clientOf({ host: config.host, port: String(config.port), database: config.database, username: BROKER }, password);
      const denied = [
        "CREATE ROLE x",
        "ALTER ROLE postgres NOLOGIN",
        "GRANT pg_execute_server_program TO CURRENT_USER",
        "SET ROLE leasehold_owner",
        "SELECT rolpassword FROM pg_authid",
        "TABLE leasehold.allowed_group",
        "INSERT INTO leasehold.allowed_group VALUES ('test', 10)",
        "SELECT leasehold.setup_instance('test', 'x', NULL, NULL)",
        "SELECT leasehold.setup_login('x', 'x', NULL)",
        "SELECT leasehold.locate('test', 'postgres', NULL)",
        "SELECT leasehold.grant_functions()",
        "CREATE FUNCTION leasehold.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SET log_statement = 'all'",
        "SELECT * FROM leasehold.find_logins('other', NULL)",
        "SELECT * FROM leasehold.disable_logins('test', ARRAY['postgres'], ARRAY[NULL]::oid[], NULL)",
        "SELECT * FROM leasehold.disable_logins('test', ARRAY['lh_test_x'], ARRAY[10]::oid[], NULL)",
        "SELECT leasehold.terminate_sessions('test', ARRAY[10]::oid[])",
        "SELECT * FROM leasehold.create_logins('test', ARRAY['lh_test_x'], ARRAY['plain'], ARRAY[1000], '{}', NULL, 9999999999999, true)",
        "SELECT * FROM leasehold.create_logins('test', ARRAY['lh_test_x'], ARRAY[NULL], ARRAY[1000], '{}', NULL, 9999999999999, true)",
        "SELECT * FROM leasehold.drop_logins('test', ARRAY['lh_test_x', 'lh_test_y'], ARRAY[1]::oid[], NULL)",
      ];
      for (const statement of denied) {
        const outcome = await broker.query(statement).then(
          () => "allowed",
          (error: { code?: string }) => error.code,
        );
        expect(["42501", "LH006", "LH007", "LH010", "LH011"], `${statement} → ${outcome}`).toContain(outcome);
      }
      // Names of its own in pg_temp don't stand in for the catalog inside the functions.
      await broker.query(
        "CREATE TEMP TABLE pg_authid AS SELECT 10::oid AS oid, 'lh_test_x'::name AS rolname, false AS rolsuper, true AS rolcanlogin, now() AS rolvaliduntil",
      );
      expect((await broker.query("SELECT * FROM leasehold.find_logins('test', ARRAY['lh_test_x'])")).rowCount).toBe(0);
      await broker.end();
    });

    test("no function waits for an advisory lock, which any leased login could hold", async () => {
      const { rows } = await superuser.query("select proname from pg_proc where pronamespace = 'leasehold'::regnamespace and prosrc ~ 'pg_(try_)?advisory'");
      expect(rows).toEqual([]);
    });

    test("two who move the witness from one mark: the first one does", async () => {
      const before = (await target.witness!())?.mark;
      const marks = [1, 2, 3].map(() => ({ epoch: 1, mark: crypto.randomUUID() }));
      const moved = await Promise.all(marks.map((mark) => target.moveWitness!(before, mark)));
      expect(moved.filter(Boolean)).toHaveLength(1);
      expect(await target.witness!()).toEqual(marks[moved.indexOf(true)]);
    });

    test("finding 2, lesson 3: sessions under reconnect loops all end", async () => {
      for (let round = 0; round < 5; round++) {
        const { ref, created, secret } = await issue();
        const looping = new AbortController();
        let sessions = 0;
        const loops = Array.from({ length: 24 }, async () => {
          while (!looping.signal.aborted) {
            await clientOf(created.connection, secret).then(
              () => sessions++,
              () => new Promise((resolve) => setImmediate(resolve)),
            );
          }
        });
        await expect.poll(() => sessions, { timeout: 10_000 }).toBeGreaterThan(10);
        expect(await target.revoke(ref)).toBe("revoked");
        const alive = await superuser.query("SELECT count(*)::int AS n FROM pg_stat_activity WHERE usesysid = $1", [ref.oid]);
        looping.abort();
        await Promise.all(loops);
        expect(alive.rows).toEqual([{ n: 0 }]);
      }
    }, 60_000);

    test("sessions of a role that somebody has already dropped are ended by oid", async () => {
      const { ref, created, secret } = await issue();
      const session = await clientOf(created.connection, secret);
      const ended = new Promise((resolve) => session.once("end", resolve));
      await superuser.query(`DROP ROLE ${ref.name}`);
      expect(await target.revoke(ref)).toBe("absent");
      await ended;
    });

    test("a renamed role is not absent, and not touched", async () => {
      const { ref } = await issue();
      await superuser.query(`ALTER ROLE ${ref.name} RENAME TO somebody`);
      await expect(target.revoke(ref)).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "role_renamed" } });
      await superuser.query(`ALTER ROLE somebody RENAME TO ${ref.name}`);
      expect(await target.revoke(ref)).toBe("revoked");
    });

    test("a role of our name with attributes no lease has is not touched", async () => {
      const { ref } = await issue();
      await superuser.query(`ALTER ROLE ${ref.name} SUPERUSER`);
      await expect(target.revoke(ref)).rejects.toMatchObject({ metadata: { problem: "role_protected" } });
      await superuser.query(`ALTER ROLE ${ref.name} NOSUPERUSER`);
      expect(await target.revoke(ref)).toBe("revoked");
    });

    test("finding 8: a creation that was held up past its deadline on the target is undone", async () => {
      const name = newName();
      await superuser.query("BEGIN; LOCK TABLE pg_authid IN SHARE MODE"); // the creation has passed its first check and waits
      const deadlineAt = Date.now() + 1000;
      const late = issue({ name, deadlineAt }).catch((error: unknown) => error);
      await expect
        .poll(async () => (await superuser.query("SELECT count(*)::int AS n FROM pg_locks WHERE relation = 'pg_authid'::regclass AND NOT granted")).rows[0].n, {
          timeout: 5000,
        })
        .toBe(1);
      await expect
        .poll(async () => (await superuser.query("SELECT clock_timestamp() > to_timestamp($1 / 1000.0) AS over", [deadlineAt])).rows[0].over, { timeout: 5000 })
        .toBe(true);
      await superuser.query("COMMIT");
      expect(await late).toMatchObject({ reason: "TARGET_UNAVAILABLE", metadata: { problem: "deadline_passed" } });
      expect(await target.find(name)).toBeUndefined();
    });

    test("leased logins get the limit, the groups and nothing else", async () => {
      const { ref } = await issue({ role: { ...role, connectionLimit: 3 } });
      const { rows } = await superuser.query(
        `SELECT rolconnlimit, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls AS any, rolpassword LIKE 'SCRAM-SHA-256$4096:%' AS scram,
                ARRAY(SELECT roleid::regrole::text FROM pg_auth_members WHERE member = a.oid) AS groups,
                rolvaliduntil BETWEEN now() + interval '50 s' AND now() + interval '60 s' AS ends FROM pg_authid a WHERE oid = $1`,
        [ref.oid],
      );
      expect(rows).toEqual([{ rolconnlimit: 3, any: false, scram: true, groups: [GROUP], ends: true }]);
      await target.revoke(ref);
    });

    test("finding 23: groups off the list, or with power gained since, are refused", async () => {
      await superuser.query("CREATE ROLE boss NOLOGIN CREATEROLE; CREATE ROLE plain NOLOGIN");
      const problem = (name: string) => ({ reason: "TARGET_MISCONFIGURED", metadata: { problem: name } });
      for (const group of ["plain", "nobody_here"])
        await expect(issue({ role: { ...role, memberOf: [group] } })).rejects.toMatchObject(problem("group_not_allowed"));
      await expect(issue({ role: { ...role, memberOf: ["leasehold_owner"] } })).rejects.toMatchObject(problem("group_too_powerful"));
      for (const power of ["boss", "pg_execute_server_program", "pg_read_server_files", `leasehold_broker_${INSTANCE}`]) {
        await superuser.query(`GRANT ${power} TO ${GROUP}`);
        await expect(issue()).rejects.toMatchObject(problem("group_too_powerful"));
        const groups = (await target.preflight(role)).find((check) => check.name === "groups");
        expect(groups).toMatchObject({ ok: false, detail: expect.stringContaining(GROUP) });
        await superuser.query(`REVOKE ${power} FROM ${GROUP}`);
      }
      await superuser.query(`ALTER ROLE ${GROUP} RENAME TO away; ALTER ROLE plain RENAME TO ${GROUP}`); // by oid, not by name
      await expect(issue()).rejects.toMatchObject(problem("group_not_allowed"));
      await superuser.query(`ALTER ROLE ${GROUP} RENAME TO plain; ALTER ROLE away RENAME TO ${GROUP}`);
      await target.revoke((await issue()).ref);
    });

    test("lesson 19: groups and databases with quotes, semicolons and braces work as they are", async () => {
      const odd = `o"dd'; DROP ROLE {{x}} $$ %s`;
      const quoted = superuser.escapeIdentifier(odd);
      await superuser.query(`CREATE ROLE ${quoted} NOLOGIN`);
      await superuser.query(`CREATE DATABASE ${quoted}`);
      await bootstrapPostgres(superuser, { instance: INSTANCE, login: BROKER, verifier: undefined, allowedGroups: [GROUP, odd] });
      const { ref, created, secret } = await issue({ role: { ...role, database: odd, memberOf: [odd, GROUP] } });
      const session = await clientOf(created.connection, secret);
      expect((await session.query("SELECT current_database() AS db, pg_has_role($1, 'USAGE') AS member", [odd])).rows).toEqual([{ db: odd, member: true }]);
      expect(await target.revoke(ref)).toBe("revoked");
    });

    test("lesson 22: a statement that hangs is given up, and its session never used again", async () => {
      const hasty = postgres.open(config, password, { ...OPTIONS, instance: INSTANCE, statementTimeoutMs: 400, maxConnections: 1 });
      await hasty.identify();
      await superuser.query("BEGIN; LOCK TABLE pg_authid IN SHARE MODE");
      const name = newName();
      const stuck = hasty.create({ name, password: newPassword(), role, validForMs: MINUTE, deadlineAt: Date.now() + MINUTE });
      await expect(stuck).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE" });
      await superuser.query("COMMIT");
      await hasty.identify();
      expect(await hasty.find(name)).toBeUndefined();
      await hasty.close();
    });

    test("sessions of the engine have an empty search_path, and durable commits", async () => {
      const seen = superuser.query(
        `ALTER ROLE ${BROKER} SET search_path = public; ALTER ROLE ${BROKER} SET synchronous_commit = off; ALTER DATABASE postgres SET statement_timeout = 0`,
      );
      await seen;
      const { clientConfig, TargetClient } = await import("../../src/engines/postgres/client.ts");
      const client = new TargetClient(await clientConfig(config, password, OPTIONS));
      await client.connect();
      const { rows } = await client.query(
        "SELECT current_setting('search_path') AS path, current_setting('synchronous_commit') AS sync, current_setting('statement_timeout') AS st, current_setting('lock_timeout') AS lt",
      );
      expect(rows).toEqual([{ path: "", sync: "on", st: "5s", lt: "2500ms" }]);
      await client.end();
      await superuser.query(`ALTER ROLE ${BROKER} RESET search_path; ALTER ROLE ${BROKER} RESET synchronous_commit`);
    });

    test("wrong password and wrong database are told apart, without the password", async () => {
      const wrong = newPassword();
      const stranger = postgres.open(config, wrong, { ...OPTIONS, instance: INSTANCE });
      const error: unknown = await stranger.identify().catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "authentication_failed" } });
      expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain(wrong.revealText());
      await stranger.close();
      const nowhere = postgres.open({ ...config, database: "missing" }, password, { ...OPTIONS, instance: INSTANCE });
      await expect(nowhere.identify()).rejects.toMatchObject({ metadata: { problem: "database_missing" } });
      await nowhere.close();
    });

    test("lesson 21: preflight names what is missing", async () => {
      const failing = async (change: Partial<PostgresTargetConfig>, tried: Partial<PostgresRoleConfig> = {}) => {
        const other = postgres.open({ ...config, ...change }, password, { ...OPTIONS, instance: INSTANCE });
        const checks = await other.preflight({ ...role, ...tried });
        await other.close();
        return Object.fromEntries(checks.filter((check) => !check.ok).map((check) => [check.name, check.detail]));
      };
      expect(await failing({})).toEqual({});
      expect(await failing({ database: "unprepared" })).toEqual({ bootstrap: expect.stringContaining("run leasehold target bootstrap") });
      expect(await failing({}, { memberOf: ["nobody_here"] })).toEqual({ groups: expect.stringContaining("nobody_here does not exist") });
      expect(await failing({}, { database: "missing" })).toMatchObject({ login: "the database does not exist" });
      expect(await failing({}, { database: "unprepared", ownedObjects: { kind: "drop" } })).toEqual({
        owned_objects: expect.stringContaining("run leasehold target bootstrap"),
      });
      await superuser.query("REVOKE CONNECT ON DATABASE unprepared FROM PUBLIC");
      expect(await failing({}, { database: "unprepared" })).toEqual({ login: expect.stringContaining("CONNECT") });
      await superuser.query(`ALTER ROLE ${BROKER} CREATEDB; ALTER ROLE ${BROKER} SET log_statement = 'all'`);
      expect(Object.keys(await failing({}))).toEqual(["broker_login", "logging"]);
      await superuser.query(`ALTER ROLE ${BROKER} NOCREATEDB; ALTER ROLE ${BROKER} SET log_statement = 'none'`);
      // Without a role to try, a database that lets in groups alone is none the worse for it.
      await superuser.query(`REVOKE CONNECT ON DATABASE ${config.database} FROM PUBLIC`);
      const withoutRole = await target.preflight(undefined);
      await superuser.query(`GRANT CONNECT ON DATABASE ${config.database} TO PUBLIC`);
      expect(withoutRole.filter((check) => !check.ok)).toEqual([]);
      expect(withoutRole.find((check) => check.name === "login")?.detail).toContain("without a group");
      const left = await superuser.query("SELECT rolname FROM pg_roles WHERE rolname LIKE 'lh\\_test\\_preflight%'");
      expect(left.rows).toEqual([]);
    });

    test("finding 12: a standby is no place to revoke, nor to find nothing", async () => {
      const own = await startCluster(version);
      try {
        const made = await bootstrapCluster(own);
        const opened = postgres.open(made.config, made.password, { ...OPTIONS, instance: INSTANCE });
        const { systemIdentifier } = await opened.identify();
        await own.restart({ "standby.signal": "" });
        await expect
          .poll(
            () =>
              opened.identify().then(
                (identity) => identity.inRecovery,
                () => undefined,
              ),
            { timeout: 10_000 },
          )
          .toBe(true);
        const ref: LoginRef = { name: newName(), oid: "12345", systemIdentifier, ownedObjects: { kind: "refuse" } };
        await expect(opened.revoke(ref)).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE", metadata: { problem: "in_recovery" } });
        expect(await opened.preflight(undefined)).toMatchObject([{ name: "connect", ok: false, detail: expect.stringContaining("recovery") }]);
        await opened.close();
      } finally {
        await own.stop();
      }
    }, 60_000);

    test("takes for a password only what is a finished verifier, letter by letter", async () => {
      const [salt, key] = [`${"A".repeat(22)}==`, `${"b/+9".repeat(10)}xyz=`];
      const check = (verifier: string | null) => superuser.query("SELECT leasehold.check_verifier($1)", [verifier]);
      for (const iterations of ["1", "4096", "100000"]) await check(`SCRAM-SHA-256$${iterations}:${salt}$${key}:${key}`);
      const odd = [
        ...["", "0", "01", "100001", "1000000", "9".repeat(40), "4096 ", "-1", "+1"].map((iterations) => `SCRAM-SHA-256$${iterations}:${salt}$${key}:${key}`),
        ...["AAAA==", `A${salt}`, salt.slice(1), `${"A".repeat(21)}===`, `${"A".repeat(21)}$==`, `${"A".repeat(21)}é==`].map(
          (other) => `SCRAM-SHA-256$1:${other}$${key}:${key}`,
        ),
        ...[`b${key}`, key.slice(1), "", `${key.slice(0, -2)}==`, key.replace("b", "$"), key.replace("b", ":")].flatMap((other) => [
          `SCRAM-SHA-256$1:${salt}$${other}:${key}`,
          `SCRAM-SHA-256$1:${salt}$${key}:${other}`,
        ]),
        `SCRAM-SHA-256$1:${salt}$${key}b:${key.slice(1)}`,
        `SCRAM-SHA-256$1:${salt}$${key}:${key}\n`,
        `\nSCRAM-SHA-256$1:${salt}$${key}:${key}`,
        `scram-sha-256$1:${salt}$${key}:${key}`,
        `md5${"0".repeat(32)}`,
        "a plain password",
        "",
        null,
      ];
      for (const verifier of odd) await expect(check(verifier), String(verifier)).rejects.toMatchObject({ code: "LH011" });
    });

    describe("bootstrap", () => {
      const options = { instance: INSTANCE, login: BROKER, verifier: undefined, allowedGroups: [GROUP] };
      const refused = (why: string) => ({ reason: "TARGET_MISCONFIGURED", cause: expect.objectContaining({ message: expect.stringContaining(why) }) });

      test("run again it changes nothing that leases depend on", async () => {
        const { ref } = await issue();
        await bootstrapPostgres(superuser, options);
        await bootstrapPostgres(superuser, { ...options, allowedGroups: undefined });
        expect(await target.revoke(ref)).toBe("revoked");
      });

      test("refuses powerful groups, roles that are not its own, and a lesser caller", async () => {
        await superuser.query("CREATE ROLE mighty NOLOGIN BYPASSRLS; CREATE ROLE passer_by LOGIN");
        await expect(bootstrapPostgres(superuser, { ...options, allowedGroups: ["mighty"] })).rejects.toMatchObject(refused("too_powerful"));
        await expect(bootstrapPostgres(superuser, { ...options, allowedGroups: ["nobody_here"] })).rejects.toMatchObject(refused("missing"));
        await expect(bootstrapPostgres(superuser, { ...options, login: "postgres" })).rejects.toMatchObject(refused("no login of this broker"));
        await expect(bootstrapPostgres(superuser, { ...options, login: "brand_new" })).rejects.toMatchObject(refused("needs a password"));
        await superuser.query("SET SESSION AUTHORIZATION passer_by");
        const lesser = await bootstrapPostgres(superuser, options).catch((error: unknown) => error);
        await superuser.query("RESET SESSION AUTHORIZATION");
        expect(lesser).toMatchObject({ reason: "TARGET_MISCONFIGURED" });
        await target.revoke((await issue()).ref);
      });

      test("never goes back to an older version, nor into a schema of somebody else", async () => {
        await superuser.query("CREATE OR REPLACE FUNCTION leasehold.version() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 99'");
        await expect(bootstrapPostgres(superuser, options)).rejects.toMatchObject(refused("newer"));
        await superuser.query("CREATE OR REPLACE FUNCTION leasehold.version() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1'");
        const there = await cluster.superuser("unprepared");
        await there.query("CREATE SCHEMA leasehold");
        await expect(bootstrapPostgres(there, options)).rejects.toMatchObject(refused("not ours"));
        await there.query("DROP SCHEMA leasehold");
        await there.end();
      });

      test("a second broker on the same server sees and touches nothing of the first", async () => {
        const otherPassword = newPassword();
        await bootstrapPostgres(superuser, { instance: "second", login: "leasehold_second", verifier: await brokerVerifier(otherPassword), allowedGroups: [] });
        const second = postgres.open({ ...config, username: "leasehold_second" }, otherPassword, { ...OPTIONS, instance: "second" });
        const impostor = postgres.open({ ...config, username: "leasehold_second" }, otherPassword, { ...OPTIONS, instance: INSTANCE });
        const { ref } = await issue();
        await expect(second.revoke(ref)).rejects.toMatchObject({ metadata: { problem: "role_protected" } });
        await expect(impostor.revoke(ref)).rejects.toMatchObject({ metadata: { problem: "not_bootstrapped" } });
        await expect(impostor.find(ref.name)).rejects.toMatchObject({ metadata: { problem: "not_bootstrapped" } });
        const foreignGroup = { name: "lh_second_x_aaaaaaaa", password: newPassword(), role, validForMs: MINUTE, deadlineAt: Date.now() + MINUTE };
        await expect(second.create(foreignGroup)).rejects.toMatchObject({ metadata: { problem: "group_not_allowed" } });
        expect((await target.find(ref.name))?.canLogin).toBe(true);
        await target.revoke(ref);
        await Promise.all([second.close(), impostor.close()]);
      });
    });
  });
}
