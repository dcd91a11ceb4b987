import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { LeaseRecord } from "../../src/model/lease.ts";
import { actorOf, dies, type Faults, gate, leaseWorld, type LeaseTarget, type LeaseWorld, type Replica, ROLE, startLeaseTarget } from "../support/leases.ts";
import { until } from "../support/until.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** Creation deadline and statement timeout of the default settings. */
const GIVEN_UP_MS = 30_000;

describe("leases when workers die or freeze", () => {
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

  const issue = async (by = replica, ttlMs = HOUR): Promise<LeaseRecord> =>
    (await by.issuer.issue({ path: ROLE, ttlMs, actor: actorOf(), request: undefined })).lease;
  const pending = async (faults: Faults): Promise<LeaseRecord> => {
    const broken = await world.replica({ faults });
    const known = new Set((await world.database.query<{ id: string }>("select id from lease")).map((row) => row.id));
    await expect(issue(broken)).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE" });
    const rows = await world.database.query<{ id: string }>("select id from lease where state = 'PENDING'");
    return replica.lease(rows.find((row) => !known.has(row.id))!.id);
  };
  const reaches = (id: string, state: LeaseRecord["state"]): Promise<LeaseRecord> =>
    until(`the lease is ${state}`, async () => {
      const lease = await replica.lease(id);
      return lease.state === state && lease;
    });

  it("lesson 1: a crash between creating the login and writing so leaves no orphan", async () => {
    const lease = await pending({ afterCreate: dies });
    expect(await target.has(lease.username)).toBe(true);
    await replica.clockwork.sweep();
    expect((await replica.lease(lease.id)).state).toBe("PENDING");
    await world.advance(GIVEN_UP_MS + 1000);
    await replica.clockwork.sweep();
    const ended = await reaches(lease.id, "REVOKED");
    expect(ended.endCause).toBe("ISSUE_FAILED");
    expect(await target.has(lease.username)).toBe(false);
    expect(await world.actions(lease.id)).toEqual(["lease.recover", "lease.end"]);
  });

  it("a crash before creating it is rolled back once no creation can come any more, not before", async () => {
    const lease = await pending({ beforeCreate: dies });
    await world.advance(GIVEN_UP_MS - 1000);
    await replica.clockwork.sweep();
    expect((await replica.lease(lease.id)).state).toBe("PENDING");
    await world.advance(2000);
    await replica.clockwork.sweep();
    await reaches(lease.id, "ROLLED_BACK");
    expect(await world.actions(lease.id)).toEqual(["lease.recover"]);
  });

  it("finding 8: a worker frozen before the creation wakes up under a row that was given up, and its target refuses", async () => {
    const step = gate();
    // The deadline is over at once on the target's clock: the worker is frozen for longer, whatever the machine.
    const frozen = await world.replica({ faults: { beforeCreate: step.pass }, settings: { createDeadlineMs: 0, statementMs: 0 } });
    const answer = issue(frozen);
    answer.catch(() => {});
    await step.reached;
    const [row] = await world.database.query<{ id: string; username: string }>("select id, username from lease where state = 'PENDING'");
    await replica.clockwork.sweep();
    await reaches(row!.id, "ROLLED_BACK");
    step.open();
    await expect(answer).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE", metadata: { problem: "deadline_passed" } });
    expect(await target.has(row!.username)).toBe(false);
    expect((await replica.lease(row!.id)).state).toBe("ROLLED_BACK");
  });

  it("finding 8: a login found under an ended lease at the last look goes the safe way", async () => {
    const lease = await pending({ beforeCreate: dies });
    await world.advance(GIVEN_UP_MS + 1000);
    await replica.clockwork.sweep();
    await reaches(lease.id, "ROLLED_BACK");
    await target.sql(`create role ${lease.username} login`); // whatever made it: a clock that jumped, a restored target
    await world.advance(HOUR + 2 * MINUTE);
    await replica.clockwork.sweep();
    await reaches(lease.id, "REVOKED");
    expect(await target.has(lease.username)).toBe(false);
    await world.advance(5 * MINUTE);
    await replica.clockwork.sweep();
    await until("the last look is done", async () => (await replica.lease(lease.id)).nextActionAt === undefined);
  });

  it("last looks at many leases are few looks at the target: those who revoke need it too", async () => {
    let looks = 0;
    const one = await world.replica({ faults: { looks: () => looks++ } });
    const issued = await Promise.all(Array.from({ length: 100 }, () => issue(one)));
    const ids = issued.map(({ id }) => id);
    const left = (condition: string) =>
      world.database.query("select from lease where id = any ($1::uuid[]) and " + condition + " limit 1", [ids]).then((rows) => rows.length > 0);
    await Promise.all(ids.map((id) => one.revoker.revoke(id, actorOf(), undefined, 10_000)));
    await until("all are revoked", async () => !(await left("state <> 'REVOKED'")));
    looks = 0;
    await world.advance(HOUR + 5 * MINUTE);
    await until("all were looked for", async () => {
      await one.clockwork.sweep();
      return !(await left("next_action_at is not null"));
    });
    expect(looks).toBeGreaterThan(0);
    expect(looks).toBeLessThan(20);
  });

  it("a lease revoked while it is created is not said to be gone before no creation can come any more", async () => {
    const step = gate();
    const slow = await world.replica({ faults: { beforeCreate: step.pass } });
    const answer = issue(slow);
    answer.catch(() => {});
    await step.reached;
    const [row] = await world.database.query<{ id: string; username: string }>("select id, username from lease where state = 'PENDING'");
    for (const _ of ["first", "second"]) {
      const { lease } = await replica.revoker.revoke(row!.id, actorOf(), undefined, 10_000);
      expect(lease).toMatchObject({ state: "REVOKING", endCause: "REVOKED" });
    }
    step.open();
    await expect(answer).rejects.toMatchObject({ reason: "LEASE_ENDED" });
    expect(await target.has(row!.username)).toBe(true);
    await world.advance(GIVEN_UP_MS + 1000);
    await replica.clockwork.sweep();
    await reaches(row!.id, "REVOKED");
    expect(await target.has(row!.username)).toBe(false);
  });

  it.each([
    ["before", { beforeRenew: dies }],
    ["after", { afterRenew: dies }],
  ] as const)("finding 17: a renewal cut off %s the target was asked is finished by the schedule", async (_when, faults) => {
    const lease = await issue();
    const before = await target.validUntil(lease.username);
    const broken = await world.replica({ faults });
    await expect(broken.renewer.renew(lease, 2 * HOUR, actorOf(), undefined)).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE" });
    const half = await replica.lease(lease.id);
    expect(half.expireAt).toBeGreaterThan(lease.expireAt);
    expect(half.renewingTo).toBe(half.expireAt);
    await world.advance(20_000);
    await replica.clockwork.sweep();
    const whole = await until("the renewal is whole", async () => {
      const now = await replica.lease(lease.id);
      return now.renewingTo === undefined && now;
    });
    expect(whole).toMatchObject({ state: "ACTIVE", expireAt: half.expireAt, nextActionAt: half.expireAt });
    expect(await target.validUntil(lease.username)).toBeGreaterThan(before + 50 * MINUTE);
    expect(await world.events(lease.id)).toEqual([20, 21]);
  });

  it("finding 17: a half renewal whose target can't be asked ends at the end that the ledger has decided", async () => {
    const lease = await issue();
    const broken = await world.replica({ faults: { beforeRenew: dies } });
    await expect(broken.renewer.renew(lease, 2 * HOUR, actorOf(), undefined)).rejects.toThrow();
    const { renewingTo } = await replica.lease(lease.id);
    await world.advance(2 * HOUR + 1000);
    await broken.clockwork.sweep();
    const ended = await reaches(lease.id, "REVOKED");
    expect(ended).toMatchObject({ endCause: "EXPIRED", expireAt: renewingTo });
  });

  it("a half renewal that fails again and again does not put off the end", async () => {
    const lease = await issue();
    const broken = await world.replica({ faults: { beforeRenew: dies } });
    await expect(broken.renewer.renew(lease, 2 * HOUR, actorOf(), undefined)).rejects.toThrow();
    await world.database.query("update lease set attempts = 12 where id = $1", [lease.id]);
    await world.advance(2 * HOUR - 30_000); // the next pause would be minutes long
    await broken.clockwork.sweep();
    const failed = await until("it failed", async () => {
      const now = await replica.lease(lease.id);
      return now.attempts === 13 && now;
    });
    expect(failed).toMatchObject({ state: "ACTIVE", nextActionAt: failed.expireAt });
    await broken.clockwork.stop();
  });

  it("of two renewals at once the later one waits, so that the target's end can't lie before the ledger's", async () => {
    const lease = await issue();
    const step = gate();
    const slow = await world.replica({ faults: { beforeRenew: step.pass } });
    const first = slow.renewer.renew(lease, 90 * MINUTE, actorOf(), undefined);
    await step.reached;
    await expect(replica.renewer.renew(lease, 3 * HOUR, actorOf(), undefined)).rejects.toMatchObject({ reason: "REQUEST_IN_FLIGHT" });
    step.open();
    await first;
    const { lease: renewed } = await replica.renewer.renew(lease, 3 * HOUR, actorOf(), undefined);
    expect(await target.validUntil(lease.username)).toBeGreaterThan(Date.now() + (renewed.expireAt - replica.clock.now()));
  });

  it("a renewal with a request_id that was cut off is in flight until it is whole, and then done once", async () => {
    const lease = await issue();
    const broken = await world.replica({ faults: { beforeRenew: dies } });
    const request = { id: randomUUID(), hash: "h" };
    await expect(broken.renewer.renew(lease, 2 * HOUR, actorOf(), request)).rejects.toThrow();
    await expect(replica.renewer.renew(lease, 2 * HOUR, actorOf(), request)).rejects.toMatchObject({ reason: "REQUEST_IN_FLIGHT" });
    await world.advance(20_000);
    await replica.clockwork.sweep();
    await until("the renewal is whole", async () => (await replica.lease(lease.id)).renewingTo === undefined);
    const again = await replica.renewer.renew(lease, 2 * HOUR, actorOf(), request);
    expect(again).toMatchObject({ recorded: false, lease: { expireAt: (await replica.lease(lease.id)).expireAt } });
    expect(await world.events(lease.id)).toEqual([20, 21]);
  });

  it("lesson 11: a renewal that races a revocation does not bring the lease back", async () => {
    const lease = await issue();
    const step = gate();
    const slow = await world.replica({ faults: { beforeRenew: step.pass } });
    const renewal = slow.renewer.renew(lease, 2 * HOUR, actorOf(), undefined);
    renewal.catch(() => {});
    await step.reached;
    expect((await replica.revoker.revoke(lease.id, actorOf(), undefined, 10_000)).lease.state).toBe("REVOKED");
    step.open();
    await expect(renewal).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "login_missing" } });
    expect(await target.has(lease.username)).toBe(false);
    expect(await replica.lease(lease.id)).toMatchObject({ state: "REVOKED", renewingTo: undefined });
  });

  it("a worker that dies while it revokes leaves the lease to the next one", async () => {
    const lease = await issue();
    const stuck = gate();
    const dead = await world.replica({ faults: { beforeRevoke: stuck.pass } });
    await world.advance(HOUR);
    await dead.clockwork.sweep();
    await stuck.reached;
    await replica.clockwork.sweep();
    expect((await replica.lease(lease.id)).state).toBe("REVOKING"); // claimed
    await world.advance(MINUTE + 1000);
    await replica.clockwork.sweep();
    await reaches(lease.id, "REVOKED");
    stuck.open();
    await dead.clockwork.stop();
    expect((await world.actions(lease.id)).filter((action) => action === "lease.end")).toHaveLength(1);
  });
});
