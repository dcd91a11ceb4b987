import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { LeaseRecord } from "../../src/model/lease.ts";
import { clientOf } from "../conformance/engine-postgres-setup.ts";
import { actorOf, leaseWorld, type LeaseTarget, type LeaseWorld, type Replica, ROLE, startLeaseTarget } from "../support/leases.ts";
import { until } from "../support/until.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

describe("leases when targets fail", () => {
  let target: LeaseTarget;
  let other: LeaseTarget;
  let world: LeaseWorld;
  let replica: Replica;

  beforeAll(async () => {
    target = await startLeaseTarget();
    other = await startLeaseTarget(target.password);
    world = await leaseWorld(target);
    await world.putTarget("other", other);
    await world.putRole("credentials/postgres/a/other", "other", other.role);
    replica = await world.replica();
  });
  afterAll(async () => {
    await world?.close();
    await Promise.all([target?.cluster.stop(), other?.cluster.stop()]);
  });

  const issue = async (path = ROLE): Promise<LeaseRecord> => (await replica.issuer.issue({ path, ttlMs: HOUR, actor: actorOf(), request: undefined })).lease;
  const revoke = async (id: string): Promise<LeaseRecord> => (await replica.revoker.revoke(id, actorOf(), undefined, 20_000)).lease;
  const reaches = (id: string, state: LeaseRecord["state"]): Promise<LeaseRecord> =>
    until(`the lease is ${state}`, async () => {
      const lease = await replica.lease(id);
      return lease.state === state && lease;
    });

  it("lesson 5: a login that somebody else dropped is gone", async () => {
    const lease = await issue();
    await target.sql(`drop role ${lease.username}`);
    expect(await revoke(lease.id)).toMatchObject({ state: "REVOKED", problem: undefined });
  });

  it("lesson 7: a lease ends by what its own row says, though its role is gone, and twice revoked is revoked", async () => {
    const path = "credentials/postgres/a/going";
    await world.putRole(path, "db", target.role);
    const lease = await issue(path);
    await world.database.query("delete from role where path = $1", [path]);
    await replica.catalog.reset();
    expect((await revoke(lease.id)).state).toBe("REVOKED");
    expect((await revoke(lease.id)).state).toBe("REVOKED");
    expect(await target.has(lease.username)).toBe(false);
  });

  it("finding 12: absent on another server means nothing; on the right one again the login goes", async () => {
    const lease = await issue();
    await world.putTarget("db", other); // the address leads to another server now
    const asked = await revoke(lease.id);
    expect(asked).toMatchObject({ state: "REVOKING", attempts: 1, problem: "different_server" });
    expect(await target.has(lease.username)).toBe(true);
    await world.putTarget("db", target);
    await world.advance(10 * MINUTE);
    await replica.clockwork.sweep();
    await reaches(lease.id, "REVOKED");
    expect(await target.has(lease.username)).toBe(false);
  });

  it("finding 12: a creation that never ended is not rolled back on another server's word: it is in quarantine, until the address leads to the right one again", async () => {
    const lease = await issue();
    await world.database.query("update lease set state = 'PENDING', login_oid = null, next_action_at = leasehold_now() where id = $1", [lease.id]);
    await world.putTarget("db", other);
    await replica.clockwork.sweep();
    await until("it was tried", async () => (await replica.lease(lease.id)).problem === "quarantined");
    expect((await replica.lease(lease.id)).state).toBe("PENDING");
    await world.putTarget("db", target);
    await world.advance(10 * MINUTE);
    await replica.clockwork.sweep();
    await reaches(lease.id, "REVOKED");
    expect(await target.has(lease.username)).toBe(false);
  });

  it("a lease whose login owns something is stalled at once, dead, and gone once that is settled", async () => {
    const { lease, password } = await replica.issuer.issue({ path: ROLE, ttlMs: HOUR, actor: actorOf(), request: undefined });
    const client = await clientOf(lease.connection, password);
    await client.query("create table owned (n int)");
    await client.end();
    expect(await revoke(lease.id)).toMatchObject({ state: "REVOKING", stalled: true, problem: "owned_objects" });
    await expect(clientOf(lease.connection, password)).rejects.toThrow();
    expect(await world.events(lease.id)).toEqual([20, 24]);
    await target.sql("drop table owned");
    expect((await revoke(lease.id)).state).toBe("REVOKED");
    expect(await world.events(lease.id)).toEqual([20, 24, 23]);
  });

  it("lesson 6: revocation never gives up, is said to be stalled once, and a target that is down holds up no other", async () => {
    const lease = await issue();
    const healthy = await issue("credentials/postgres/a/other");
    await target.cluster.stop();
    try {
      const asked = await revoke(lease.id);
      expect(asked).toMatchObject({ state: "REVOKING", attempts: 1, stalled: false });
      await expect(issue()).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE" });
      for (let attempts = asked.attempts; attempts < 8; attempts++) {
        await world.advance(10 * MINUTE);
        await replica.clockwork.sweep();
        const tried = await until("it was tried again", async () => {
          const now = await replica.lease(lease.id);
          return now.attempts > attempts && now;
        });
        expect(tried.stalled).toBe(tried.attempts >= 6);
        expect(tried.nextActionAt! - replica.clock.now()).toBeLessThan(6 * MINUTE);
      }
      expect((await world.events(lease.id)).filter((type) => type === 24)).toHaveLength(1);
      await reaches(healthy.id, "REVOKED");
    } finally {
      await target.cluster.restart({});
    }
    await until("the login is gone once the target is back", async () => {
      await world.advance(10 * MINUTE);
      await replica.clockwork.sweep();
      return (await replica.lease(lease.id)).state === "REVOKED";
    });
    expect(await replica.lease(lease.id)).toMatchObject({ stalled: false, problem: undefined });
    expect(await target.has(lease.username)).toBe(false);
  });
});
