import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { LoginRef, OwnedObjects, Target } from "../../src/engines/engine.ts";
import { newLoginSuffix, newPassword } from "../../src/engines/generate.ts";
import { loginName } from "../../src/engines/names.ts";
import type { PostgresRoleConfig } from "../../src/engines/postgres/config.ts";
import { postgres } from "../../src/engines/postgres/definition.ts";
import { startCluster, VERSIONS, type Cluster } from "../conformance/engine-clusters.ts";
import { bootstrapCluster, clientOf, GROUP, INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { OPTIONS } from "../conformance/engine.ts";

const MINUTE = 60_000;
const REFUSE: OwnedObjects = { kind: "refuse" };
const DROP: OwnedObjects = { kind: "drop" };
const TO_GROUP: OwnedObjects = { kind: "reassign_to", role: GROUP };

for (const version of VERSIONS) {
  describe(`owned objects on PostgreSQL ${version}`, () => {
    let cluster: Cluster;
    let role: PostgresRoleConfig;
    let target: Target<PostgresRoleConfig>;
    let superuser: pg.Client;

    beforeAll(async () => {
      cluster = await startCluster(version);
      const made = await bootstrapCluster(cluster);
      role = made.role;
      target = postgres.open(made.config, made.password, { ...OPTIONS, instance: INSTANCE });
      superuser = await cluster.superuser();
      await superuser.query("CREATE ROLE stranger NOLOGIN; CREATE ROLE loud LOGIN");
    }, 60_000);
    afterAll(async () => {
      await superuser?.end();
      await target?.close();
      await cluster?.stop();
    });

    /** A lease that has run `statements` in `database`, its session still open. */
    async function leased(statements: readonly string[], database = "postgres"): Promise<{ ref: LoginRef; session: pg.Client }> {
      const name = loginName(INSTANCE, "credentials/postgres/rw", newLoginSuffix());
      const password = newPassword();
      const created = await target.create({ name, password, role: { ...role, database }, validForMs: MINUTE, deadlineAt: Date.now() + MINUTE });
      const session = await clientOf(created.connection, password);
      for (const statement of statements) await session.query(statement);
      return { ref: { name, oid: created.oid, systemIdentifier: created.systemIdentifier, ownedObjects: REFUSE }, session };
    }

    async function relationOwner(name: string, client = superuser): Promise<string | undefined> {
      const { rows } = await client.query<{ owner: string }>("SELECT relowner::regrole::text AS owner FROM pg_class WHERE oid = to_regclass($1)", [name]);
      return rows[0]?.owner;
    }

    test("finding 6, lesson 4: refuse leaves the objects, the login dead, its session ended, and says where", async () => {
      const { ref, session } = await leased(["CREATE TABLE public.kept AS SELECT generate_series(1, 1000) AS n"]);
      const ended = new Promise((resolve) => session.once("end", resolve));
      const stalled = { reason: "TARGET_MISCONFIGURED", metadata: { problem: "owned_objects", databases: "postgres" } };
      await expect(target.revoke(ref)).rejects.toMatchObject(stalled);
      await ended;
      expect(await target.find(ref.name)).toEqual({ oid: ref.oid, canLogin: false });
      await target.renew(ref, MINUTE);
      expect((await target.find(ref.name))?.canLogin).toBe(false);
      expect((await superuser.query("SELECT count(*)::int AS n FROM public.kept")).rows[0]).toEqual({ n: 1000 });
      await expect(target.revoke(ref)).rejects.toMatchObject(stalled);
      await superuser.query("DROP TABLE public.kept");
      expect(await target.revoke(ref)).toBe("revoked");
    });

    test("finding 6: drop takes the lease's objects alone, and never what depends on them", async () => {
      const { ref } = await leased(["CREATE TABLE public.doomed (n int)", "CREATE FUNCTION public.trap() RETURNS void SECURITY DEFINER LANGUAGE sql AS ''"]);
      await superuser.query("CREATE VIEW public.foreign_view AS SELECT * FROM public.doomed");
      const dropping = { ...ref, ownedObjects: DROP };
      await expect(target.revoke(dropping)).rejects.toMatchObject({ metadata: { problem: "owned_objects", databases: "postgres" } });
      expect(await relationOwner("public.doomed")).toBe(ref.name);
      expect((await target.find(ref.name))?.canLogin).toBe(false);
      await superuser.query("DROP VIEW public.foreign_view");
      expect(await target.revoke(dropping)).toBe("revoked");
      expect(await relationOwner("public.doomed")).toBeUndefined();
      expect((await superuser.query("SELECT FROM pg_proc WHERE proname = 'trap'")).rowCount).toBe(0);
    });

    test("finding 6: reassigned routines lose SECURITY DEFINER, tables keep their rows, privileges are taken back", async () => {
      const { ref } = await leased([
        "CREATE TABLE public.moved AS SELECT generate_series(1, 1000) AS n",
        "CREATE FUNCTION public.lever() RETURNS text SECURITY DEFINER LANGUAGE sql AS 'SELECT current_user::text'",
        `CREATE FUNCTION public."odd; name"("a b" int) RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'`,
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC",
      ]);
      await superuser.query(
        `CREATE TABLE public.granted (n int); GRANT SELECT ON public.granted TO ${ref.name}; GRANT CONNECT ON DATABASE other TO ${ref.name}`,
      );
      expect(await target.revoke({ ...ref, ownedObjects: TO_GROUP })).toBe("revoked");
      expect(await relationOwner("public.moved")).toBe(GROUP);
      expect((await superuser.query("SELECT count(*)::int AS n FROM public.moved")).rows[0]).toEqual({ n: 1000 });
      const routines = await superuser.query("SELECT prosecdef, proowner::regrole::text AS owner FROM pg_proc WHERE proname IN ('lever', 'odd; name')");
      expect(routines.rows).toEqual([
        { prosecdef: false, owner: GROUP },
        { prosecdef: false, owner: GROUP },
      ]);
    });

    test.each([
      ["the admin", "postgres"],
      ["the owner of the functions", "leasehold_owner"],
      ["a role the lease is no member of", "stranger"],
      ["a role that can log in", "loud"],
      ["a role that isn't there", "nobody_here"],
    ])("finding 6: objects never go to %s", async (_who, owner) => {
      const { ref } = await leased(["CREATE TABLE public.stays (n int)"]);
      await expect(target.revoke({ ...ref, ownedObjects: { kind: "reassign_to", role: owner } })).rejects.toMatchObject({
        metadata: { problem: "new_owner_not_allowed" },
      });
      expect(await relationOwner("public.stays")).toBe(ref.name);
      expect((await target.find(ref.name))?.canLogin).toBe(false);
      expect(await target.revoke({ ...ref, ownedObjects: DROP })).toBe("revoked");
    });

    test("objects in another bootstrapped database are settled there", async () => {
      const { ref } = await leased(["CREATE TABLE public.there (n int)"], "other");
      await expect(target.revoke(ref)).rejects.toMatchObject({ metadata: { databases: "other" } });
      expect(await target.revoke({ ...ref, ownedObjects: DROP })).toBe("revoked");
    });

    test("objects in a database without the functions stall the lease and name that database", async () => {
      const { ref } = await leased(["CREATE TABLE public.unreached (n int)"], "unprepared");
      await expect(target.revoke({ ...ref, ownedObjects: DROP })).rejects.toMatchObject({ metadata: { problem: "not_bootstrapped", databases: "unprepared" } });
      const there = await cluster.superuser("unprepared");
      await there.query("DROP TABLE public.unreached");
      await there.end();
      expect(await target.revoke({ ...ref, ownedObjects: DROP })).toBe("revoked");
    });

    test("a table in use is waited for a bounded time, then the target is unavailable and the login dead", async () => {
      const { ref } = await leased(["CREATE TABLE public.busy (n int)"]);
      await superuser.query("BEGIN; LOCK TABLE public.busy IN ACCESS SHARE MODE");
      try {
        await expect(target.revoke({ ...ref, ownedObjects: DROP })).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE" });
      } finally {
        await superuser.query("ROLLBACK");
      }
      expect((await target.find(ref.name))?.canLogin).toBe(false);
      expect(await target.revoke({ ...ref, ownedObjects: DROP })).toBe("revoked");
    }, 20_000);

    test("finding 6: what a lease plants in public under the names of built-ins is never run by the broker", async () => {
      const plant = (signature: string, result: string): string =>
        `CREATE FUNCTION public.${signature} RETURNS ${result} LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted code ran as %', current_user; END $$`;
      const { ref } = await leased([
        plant("quote_ident(name)", "text"),
        plant("format(text, name)", "text"),
        plant("format(text, text)", "text"),
        plant("pg_terminate_backend(int)", "boolean"),
        plant("cardinality(text[])", "int"),
        plant("text_ne_planted(text, text)", "boolean"),
        "CREATE OPERATOR public.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = public.text_ne_planted)",
      ]);
      expect(await target.revoke({ ...ref, ownedObjects: DROP })).toBe("revoked");
    });
  });
}
