import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bootstrapPostgres } from "../../src/engines/postgres/bootstrap.ts";
import type { LeaseRecord } from "../../src/model/lease.ts";
import { BROKER, clientOf, INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { actorOf, leaseWorld, type LeaseTarget, type LeaseWorld, type Replica, startLeaseTarget } from "../support/leases.ts";
import { until } from "../support/until.ts";

const HOUR = 3_600_000;
const PATH = "credentials/postgres/a/set";
const CREATE = ["INSERT INTO public.member VALUES ({{name_literal}})"];
const DROP = ["DELETE FROM public.member WHERE login = {{name_literal}}"];

describe("leases whose role names a statement set", () => {
  let target: LeaseTarget;
  let world: LeaseWorld;
  let replica: Replica;

  beforeAll(async () => {
    target = await startLeaseTarget();
    await target.sql("create table public.member (login text primary key)");
    world = await leaseWorld(target);
    replica = await world.replica();
  });
  afterAll(async () => {
    await world?.close();
    await target?.cluster.stop();
  });

  async function install(drop: readonly string[]): Promise<void> {
    const superuser = await target.cluster.superuser();
    const statementSets = [{ name: "member", create: CREATE, drop }];
    await bootstrapPostgres(superuser, { instance: INSTANCE, login: BROKER, verifier: undefined, allowedGroups: undefined, statementSets });
    await superuser.end();
  }
  async function members(): Promise<string[]> {
    const superuser = await target.cluster.superuser();
    const { rows } = await superuser.query<{ login: string }>("select login from public.member");
    await superuser.end();
    return rows.map((row) => row.login);
  }
  const putRole = (more = {}): Promise<void> => world.putRole(PATH, "db", { ...target.role, scramIterations: 1, statementSet: "member" }, more);
  const issue = () => replica.issuer.issue({ path: PATH, ttlMs: HOUR, actor: actorOf(), request: undefined });
  const revoke = async (id: string): Promise<LeaseRecord> => (await replica.revoker.revoke(id, actorOf(), undefined, 20_000)).lease;

  it("lesson 7: the set is the lease's own: its drop statements run though the role is gone", async () => {
    await install(DROP);
    await putRole();
    const { lease } = await issue();
    expect(await members()).toEqual([lease.username]);
    await world.database.query("delete from role where path = $1", [PATH]);
    await replica.catalog.reset();
    expect((await revoke(lease.id)).state).toBe("REVOKED");
    expect([await members(), await target.has(lease.username)]).toEqual([[], false]);
  });

  it("a drop statement that fails stalls the lease at once, its login dead; it is tried on, and gone when the superuser has mended the set", async () => {
    await install(["SELECT public.missing()", ...DROP]);
    await putRole();
    const { lease, password } = await issue();
    expect(await revoke(lease.id)).toMatchObject({ state: "REVOKING", stalled: true, problem: "statement_failed" });
    expect([await target.has(lease.username), await target.canLogin(lease.username)]).toEqual([true, false]);
    await expect(clientOf(lease.connection, password)).rejects.toThrow();
    await world.advance(HOUR);
    await replica.clockwork.sweep();
    await until("it was tried again", async () => (await replica.lease(lease.id)).attempts > 1);
    await install(DROP);
    await world.advance(HOUR);
    await replica.clockwork.sweep();
    await until("the lease has ended", async () => (await replica.lease(lease.id)).state === "REVOKED");
    expect([await members(), await target.has(lease.username)]).toEqual([[], false]);
  });

  it("a warm pool runs the statements when it makes a login, and the set goes with the lease that takes it", async () => {
    await install(DROP);
    await putRole({ pool: { size: 2, maxAgeMs: HOUR, refillPerSecond: 500 } });
    await replica.pool.look();
    const made = await members();
    expect(made).toHaveLength(2);
    const { lease } = await issue();
    expect(made).toContain(lease.username);
    expect((await revoke(lease.id)).state).toBe("REVOKED");
    expect(await members()).not.toContain(lease.username);
    expect(await target.has(lease.username)).toBe(false);
  });

  it("a set that the target does not have: nothing is made, and the lease that was to be is rolled back", async () => {
    const path = "credentials/postgres/a/nowhere";
    await world.putRole(path, "db", { ...target.role, statementSet: "nowhere" });
    const asked = replica.issuer.issue({ path, ttlMs: HOUR, actor: actorOf(), request: undefined });
    await expect(asked).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "statement_set_missing" } });
    const rows = await world.database.query<{ state: string }>("select state from lease where path = $1", [path]);
    expect(rows.map((row) => row.state)).toEqual(["ROLLED_BACK"]);
  });
});
