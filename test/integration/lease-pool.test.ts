import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { clientOf } from "../conformance/engine-postgres-setup.ts";
import { actorOf, dies, gate, type LeaseTarget, leaseWorld, type LeaseWorld, type Replica, startLeaseTarget } from "../support/leases.ts";
import { until } from "../support/until.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const SIZE = 6;
const POOL = { size: SIZE, maxAgeMs: 10 * MINUTE, refillPerSecond: 500 };
let counter = 0;

describe("the warm pool", () => {
  let target: LeaseTarget;
  let world: LeaseWorld;
  let replica: Replica;
  let role: string;

  beforeAll(async () => {
    target = await startLeaseTarget();
    world = await leaseWorld(target);
    replica = await world.replica();
  });
  afterAll(async () => {
    await world?.close();
    await target?.cluster.stop();
  });
  beforeEach(async () => {
    role = `credentials/postgres/pool/${counter++}`;
    await world.putRole(role, "db", { ...target.role, scramIterations: 1 }, { pool: POOL });
  });

  const shelf = (path = role): Promise<{ id: string; username: string; state: string; end_cause: string | null }[]> =>
    world.database.query("select id, username, state, end_cause from lease where path = $1 and pooled order by issued_at", [path]);
  const ready = async (path = role): Promise<string[]> => (await shelf(path)).filter((row) => row.state === "READY").map((row) => row.username);
  const issue = (by = replica, path = role) => by.issuer.issue({ path, ttlMs: HOUR, actor: actorOf(), request: undefined });
  const filled = async (): Promise<string[]> => {
    await replica.pool.look();
    const names = await ready();
    expect(names).toHaveLength(SIZE);
    return names;
  };

  it("holds logins that exist and can't log in, and an issue enables one of them", async () => {
    const names = await filled();
    for (const name of names) expect([await target.has(name), await target.canLogin(name)]).toEqual([true, false]);
    const { lease, password } = await issue();
    expect(names).toContain(lease.username);
    expect(await target.canLogin(lease.username)).toBe(true);
    expect(Math.abs((await target.validUntil(lease.username)) - (lease.expireAt + MINUTE))).toBeLessThan(5000);
    await (await clientOf(lease.connection, password)).end();
    expect(await replica.lease(lease.id)).toMatchObject({ state: "ACTIVE", principal: actorOf().principal, expireAt: lease.expireAt, renewAt: lease.renewAt });
    expect(await world.events(lease.id)).toEqual([20]);
    expect(await world.actions(lease.id)).toEqual(["lease.pool", "CredentialService/IssueCredential"]);
    expect(await ready()).not.toContain(lease.username);
  });

  it("gives no login twice, and makes what it does not have", async () => {
    const names = await filled();
    const issued = await Promise.all(Array.from({ length: 3 * SIZE }, () => issue()));
    const given = issued.map(({ lease }) => lease.username);
    expect(new Set(given).size).toBe(3 * SIZE);
    expect(names.filter((name) => !given.includes(name))).toEqual([]);
    for (const name of given) expect(await target.canLogin(name)).toBe(true);
  });

  it("is never fuller than it should be, however many replicas fill it", async () => {
    const others = await Promise.all([world.replica(), world.replica()]);
    await Promise.all([replica, ...others].map(({ pool }) => pool.look()));
    expect(await ready()).toHaveLength(SIZE);
    expect(
      (
        await target.cluster.superuser().then(async (client) => {
          const { rows } = await client.query("select from pg_roles where rolname like $1 and not rolcanlogin", [
            `lh\\_${INSTANCE}\\_pool\\_${counter - 1}\\_%`,
          ]);
          await client.end();
          return rows;
        })
      ).length,
    ).toBe(SIZE);
  });

  it("fills up once it has fallen below three quarters", async () => {
    await filled();
    await issue();
    await replica.pool.look();
    expect(await ready()).toHaveLength(SIZE - 1);
    await issue();
    await until("it to be full again", async () => {
      await replica.pool.look();
      return (await ready()).length === SIZE;
    });
  });

  it("takes away what is too old, without an event", async () => {
    const names = await filled();
    const ids = (await shelf()).map((row) => row.id);
    await world.advance(POOL.maxAgeMs + 1);
    await replica.clockwork.sweep();
    await until("the old ones to be gone", async () => (await shelf()).every((row) => row.state === "REVOKED"));
    expect((await shelf()).every((row) => row.end_cause === "POOL")).toBe(true);
    for (const name of names) expect(await target.has(name)).toBe(false);
    for (const id of ids) expect(await world.events(id)).toEqual([]);
  });

  it("gives out nothing that was made for its role as it no longer is, and takes it away", async () => {
    const names = await filled();
    await world.putRole(role, "db", { ...target.role, scramIterations: 2 }, { pool: POOL });
    const { lease } = await issue();
    expect(names).not.toContain(lease.username);
    await replica.pool.look();
    await until("the stale ones to be gone", async () => {
      await replica.clockwork.sweep();
      return (await shelf()).filter((row) => names.includes(row.username)).every((row) => row.state === "REVOKED");
    });
    for (const name of names) expect(await target.has(name)).toBe(false);
  });

  it("drains when its role is deleted", async () => {
    const names = await filled();
    await replica.writer.deleteRole(role, { etag: "", dryRun: false, actor: actorOf(), request: undefined });
    await replica.pool.look();
    await until("the pool to be empty", async () => {
      await replica.clockwork.sweep();
      return (await shelf()).every((row) => row.state === "REVOKED");
    });
    for (const name of names) expect(await target.has(name)).toBe(false);
  });

  it("an issue whose login somebody dropped fails, and leaves nothing behind", async () => {
    const names = await filled();
    for (const name of names) await target.sql(`drop role ${name}`);
    await expect(issue()).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "login_missing" } });
    await until("the row to be resolved", async () => {
      await replica.clockwork.sweep();
      const rows = await world.database.query<{ state: string }>("select state from lease where path = $1 and not pooled", [role]);
      return rows.length === 1 && rows[0]!.state === "REVOKED";
    });
    await replica.writer.deleteRole(role, { etag: "", dryRun: false, actor: actorOf(), request: undefined });
  });

  it.each([
    ["before", { beforeEnable: dies }],
    ["after", { afterEnable: dies }],
  ] as const)("a worker that dies %s it has enabled the login leaves a lease that is answered, usable, when it is asked for again", async (_when, faults) => {
    await filled();
    const broken = await world.replica({ faults });
    const order = { path: role, ttlMs: HOUR, actor: actorOf(), request: { id: randomUUID(), hash: "h" } };
    await expect(broken.issuer.issue(order)).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE" });
    const { lease, password, recorded } = await replica.issuer.issue(order);
    expect(recorded).toBe(false);
    await (await clientOf(lease.connection, password)).end();
    expect(await replica.lease(lease.id)).toMatchObject({ state: "ACTIVE", enabling: false, delivered: true, nextActionAt: lease.expireAt });
    expect(await world.events(lease.id)).toEqual([20]);
  });

  it("one that nobody asks for again is taken away after a minute", async () => {
    await filled();
    const broken = await world.replica({ faults: { afterEnable: dies } });
    await expect(issue(broken)).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE" });
    await world.advance(MINUTE + 1000);
    const gone = await until("it to be gone", async () => {
      await replica.clockwork.sweep();
      const [row] = await world.database.query<{ state: string; end_cause: string; username: string }>(
        "select state, end_cause, username from lease where path = $1 and not pooled",
        [role],
      );
      return row!.state === "REVOKED" && row;
    });
    expect(gone.end_cause).toBe("UNDELIVERED");
    expect(await target.has(gone.username)).toBe(false);
  });

  it("a worker that is gone between the commit and the target leaves it to the schedule, which enables what may have been answered", async () => {
    await filled();
    const step = gate();
    const frozen = await world.replica({ faults: { beforeEnable: step.pass } });
    const answer = issue(frozen);
    await step.reached;
    const [row] = await world.database.query<{ id: string; username: string }>("select id, username from lease where path = $1 and not pooled", [role]);
    expect(await target.canLogin(row!.username)).toBe(false);
    await world.advance(MINUTE);
    await until("it to be enabled", async () => {
      await replica.clockwork.sweep();
      return !(await replica.lease(row!.id)).enabling;
    });
    expect(await target.canLogin(row!.username)).toBe(true);
    step.open();
    const { lease } = await answer; // it wakes up, and does no harm
    expect(await replica.lease(lease.id)).toMatchObject({ state: "ACTIVE", nextActionAt: (await replica.lease(lease.id)).expireAt });
  });

  it("a worker that is frozen until the lease was revoked enables nothing", async () => {
    await filled();
    const step = gate();
    const frozen = await world.replica({ faults: { beforeEnable: step.pass } });
    const answer = issue(frozen);
    answer.catch(() => {});
    await step.reached;
    const [row] = await world.database.query<{ id: string; username: string }>("select id, username from lease where path = $1 and not pooled", [role]);
    expect((await replica.revoker.revoke(row!.id, actorOf(), undefined, 10_000)).lease.state).toBe("REVOKED");
    step.open();
    await expect(answer).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "login_missing" } });
    expect(await target.has(row!.username)).toBe(false);
  });

  it("fills to the brim when nobody takes from it", async () => {
    await filled();
    await issue();
    await replica.pool.look();
    expect(await ready()).toHaveLength(SIZE - 1);
    await replica.pool.look();
    expect(await ready()).toHaveLength(SIZE);
  });

  it("the same request again is answered with the same login", async () => {
    await filled();
    const request = { id: "7c1f7c0e-98b2-4e6f-9c61-0d7b8f4d2a10", hash: "h" };
    const order = { path: role, ttlMs: HOUR, actor: actorOf(), request };
    const [first, again] = [await replica.issuer.issue(order), await replica.issuer.issue(order)];
    expect(again.lease.id).toBe(first.lease.id);
    expect(again.password.revealText()).toBe(first.password.revealText());
  });
});

describe("quotas", () => {
  let target: LeaseTarget;
  let world: LeaseWorld;
  let replicas: Replica[];

  beforeAll(async () => {
    target = await startLeaseTarget();
    world = await leaseWorld(target);
    replicas = await Promise.all([world.replica(), world.replica()]);
  });
  afterAll(async () => {
    await world?.close();
    await target?.cluster.stop();
  });

  const many = (path: string, count: number, principal?: string) =>
    Promise.allSettled(
      Array.from({ length: count }, (_, i) => replicas[i % 2]!.issuer.issue({ path, ttlMs: HOUR, actor: actorOf(principal), request: undefined })),
    );
  const settled = (results: Awaited<ReturnType<typeof many>>) => ({
    leases: results.flatMap((result) => (result.status === "fulfilled" ? [result.value.lease] : [])),
    refusals: results.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : [])),
  });

  it("of a role are counted in the transaction, over replicas", async () => {
    const path = "credentials/postgres/quota/role";
    await world.putRole(path, "db", { ...target.role, scramIterations: 1 }, { quotas: { maxLeases: 5, maxLeasesPerPrincipal: undefined } });
    const { leases, refusals } = settled(await many(path, 12));
    expect([leases.length, refusals.length]).toEqual([5, 7]);
    for (const refusal of refusals) expect(refusal).toMatchObject({ reason: "LEASE_QUOTA", metadata: { quota: "max_leases", limit: "5" } });
    await replicas[0]!.revoker.revoke(leases[0]!.id, actorOf(), undefined, 10_000);
    expect(settled(await many(path, 3)).leases).toHaveLength(1);
  });

  it("of a principal leave room for others", async () => {
    const path = "credentials/postgres/quota/principal";
    await world.putRole(path, "db", { ...target.role, scramIterations: 1 }, { quotas: { maxLeases: undefined, maxLeasesPerPrincipal: 2 }, pool: POOL });
    await replicas[0]!.pool.look();
    const [mine, others] = await Promise.all([many(path, 6), many(path, 6, "spiffe://acme.test/ns/b/sa/app")]);
    for (const results of [mine, others]) expect(settled(results).leases).toHaveLength(2);
    expect(settled(mine).refusals[0]).toMatchObject({ metadata: { quota: "max_leases_per_principal", limit: "2" } });
  });
});

describe("a role's names and passwords", () => {
  let target: LeaseTarget;
  let world: LeaseWorld;
  let replica: Replica;

  beforeAll(async () => {
    target = await startLeaseTarget();
    world = await leaseWorld(target);
    replica = await world.replica();
  });
  afterAll(async () => {
    await world?.close();
    await target?.cluster.stop();
  });

  it("are those of its template and policy, on the target too", async () => {
    const path = "credentials/postgres/named";
    const passwordPolicy = { length: 40, minUpper: 5, minLower: 5, minDigits: 4, minSymbols: 2 };
    await world.putRole(path, "db", target.role, { usernameTemplate: "{{principal}}_{{role}}", passwordPolicy });
    const { lease, password } = await replica.issuer.issue({ path, ttlMs: HOUR, actor: actorOf(), request: undefined });
    expect(lease.username).toMatch(new RegExp(`^lh_${INSTANCE}_app_named_[a-z0-9]{12}$`));
    expect(password.revealText()).toMatch(/^[A-Za-z0-9._~-]{40}$/);
    await (await clientOf(lease.connection, password)).end();
  });

  it("are refused where they make no sense", async () => {
    const put = (more: Parameters<LeaseWorld["putRole"]>[3]) => world.putRole("credentials/postgres/wrong", "db", target.role, more);
    const policy = { length: 32, minUpper: 0, minLower: 0, minDigits: 0, minSymbols: 0 };
    for (const more of [
      { usernameTemplate: "{{password}}" },
      { usernameTemplate: "{{principal}}", pool: POOL },
      { passwordPolicy: { ...policy, length: 21 } },
      { passwordPolicy: { ...policy, minSymbols: 3 } },
    ])
      await expect(put(more), JSON.stringify(more)).rejects.toMatchObject({ reason: "REQUEST_INVALID" });
  });
});
