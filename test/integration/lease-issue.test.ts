import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Issued, Order } from "../../src/leases/order.ts";
import { clientOf } from "../conformance/engine-postgres-setup.ts";
import { actorOf, gate, leaseWorld, type LeaseTarget, type LeaseWorld, OWNER, type Replica, ROLE, startLeaseTarget } from "../support/leases.ts";
import { until } from "../support/until.ts";

const HOUR = 3_600_000;

describe("issue", () => {
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

  const order = (more: Partial<Order> = {}): Order => ({ path: ROLE, ttlMs: undefined, actor: actorOf(), request: undefined, ...more });
  const request = (hash = "h"): { id: string; hash: string } => ({ id: randomUUID(), hash });
  const worksAt = async ({ lease, password }: Issued): Promise<void> => {
    const client = await clientOf(lease.connection, password);
    await client.query("select 1");
    await client.end();
  };

  it("makes a login that works, with the row, the event and the records of it", async () => {
    const issued = await replica.issuer.issue(order({ ttlMs: HOUR / 2 }));
    const { lease } = issued;
    await worksAt(issued);
    expect(lease).toMatchObject({ path: ROLE, principal: OWNER, state: "ACTIVE", delivered: true });
    expect(lease.expireAt - lease.issuedAt).toBe(HOUR / 2);
    expect(lease.maxExpireAt - lease.issuedAt).toBe(4 * HOUR);
    expect(lease.renewAt).toBeLessThanOrEqual(lease.issuedAt + (HOUR / 2) * (2 / 3));
    expect(lease.nextActionAt).toBe(lease.expireAt);
    expect(await world.events(lease.id)).toEqual([20]);
    expect(await world.actions(lease.id)).toEqual(["CredentialService/IssueCredential"]);
    const validUntil = await target.validUntil(lease.username);
    expect(Math.abs(validUntil - (lease.expireAt + 60_000))).toBeLessThan(15_000);
    expect(Object.values(lease.connection)).not.toContain(issued.password.revealText());
    const [row] = await world.database.query<{ text: string }>("select lease::text as text from lease where id = $1", [lease.id]);
    expect(row!.text).not.toContain(issued.password.revealText());
    expect(row!.text).not.toContain(Buffer.from(issued.password.reveal()).toString("hex"));
  });

  it("lesson 12: a TTL above the maximum is refused with the limit and where it comes from; below a second, too", async () => {
    const rejected = replica.issuer.issue(order({ ttlMs: 4 * HOUR + 1 }));
    await expect(rejected).rejects.toMatchObject({ reason: "TTL_ABOVE_MAXIMUM", metadata: { maximum: "14400s", source: "role.max_ttl" } });
    await expect(replica.issuer.issue(order({ ttlMs: 0 }))).rejects.toMatchObject({ reason: "REQUEST_INVALID" });
    await expect(replica.issuer.issue(order({ path: "credentials/postgres/no/such" }))).rejects.toMatchObject({ reason: "ROLE_NOT_FOUND" });
  });

  it("decides on the role as it is in the ledger, not as this replica remembers it", async () => {
    const path = "credentials/postgres/a/changing";
    await world.putRole(path, "db", target.role);
    const stale = await world.replica();
    const remembered = stale.catalog.role(path)!;
    await world.putRole(path, "db", { ...target.role, connectionLimit: 3 });
    stale.catalog.role = (asked) => (asked === path ? remembered : undefined);
    const { lease } = await stale.issuer.issue(order({ path }));
    const client = await target.cluster.superuser();
    const { rows } = await client.query("select rolconnlimit from pg_roles where rolname = $1", [lease.username]);
    await client.end();
    expect(rows).toEqual([{ rolconnlimit: 3 }]);
  });

  it("rolls back at once what the target refuses for good", async () => {
    const path = "credentials/postgres/a/refused";
    await world.putRole(path, "db", { ...target.role, memberOf: ["no_such_group"] });
    await expect(replica.issuer.issue(order({ path }))).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED" });
    const rows = await world.database.query<{ state: string; end_cause: string; sealed: unknown }>(
      "select state, end_cause, sealed from lease where path = $1",
      [path],
    );
    expect(rows).toEqual([{ state: "ROLLED_BACK", end_cause: "ISSUE_FAILED", sealed: null }]);
  });

  describe("finding 9: the same request again", () => {
    it("is answered with the same credential, and as a disclosure of its own", async () => {
      const key = request();
      const first = await replica.issuer.issue(order({ request: key }));
      const other = await world.replica();
      const again = await other.issuer.issue(order({ request: key }));
      expect(again.lease.id).toBe(first.lease.id);
      expect(again.password.revealText()).toBe(first.password.revealText());
      expect(again.recorded).toBe(false);
      await worksAt(again);
    });

    it("with another body is a conflict, of another principal another lease", async () => {
      const key = request();
      const first = await replica.issuer.issue(order({ request: key }));
      await expect(replica.issuer.issue(order({ request: { ...key, hash: "other" } }))).rejects.toMatchObject({ reason: "CONFLICT" });
      const stranger = await replica.issuer.issue(order({ request: key, actor: actorOf("spiffe://acme.test/ns/b/sa/b") }));
      expect(stranger.lease.id).not.toBe(first.lease.id);
    });

    it("is in flight while the first is, and two at once make one lease", async () => {
      const key = request();
      const step = gate();
      const slow = await world.replica({ faults: { beforeCreate: step.pass } });
      const first = slow.issuer.issue(order({ request: key }));
      await step.reached;
      await expect(replica.issuer.issue(order({ request: key }))).rejects.toMatchObject({ reason: "REQUEST_IN_FLIGHT", retryAfterMs: 500 });
      step.open();
      const { lease } = await first;
      expect((await replica.issuer.issue(order({ request: key }))).lease.id).toBe(lease.id);

      const both = request();
      const answers = await Promise.allSettled([replica.issuer.issue(order({ request: both })), slow.issuer.issue(order({ request: both }))]);
      const rows = await world.database.query("select from lease where request_id = $1", [both.id]);
      expect(rows).toHaveLength(1);
      expect(answers.some((answer) => answer.status === "fulfilled")).toBe(true);
    });

    it("after the lease ended says so, and before the schedule has noticed, too", async () => {
      const key = request();
      const first = await replica.issuer.issue(order({ request: key }));
      await world.advance(HOUR);
      expect((await replica.lease(first.lease.id)).state).toBe("ACTIVE");
      await expect(replica.issuer.issue(order({ request: key }))).rejects.toMatchObject({ reason: "LEASE_ENDED" });
      await replica.revoker.revoke(first.lease.id, actorOf(), undefined, 10_000);
      await expect(replica.issuer.issue(order({ request: key }))).rejects.toMatchObject({ reason: "LEASE_ENDED" });
    });

    it("a replay needs no target", async () => {
      const key = request();
      const first = await replica.issuer.issue(order({ request: key }));
      const cut = await world.replica();
      cut.catalog.targetByUid = () => undefined;
      expect((await cut.issuer.issue(order({ request: key }))).password.revealText()).toBe(first.password.revealText());
    });
  });

  describe("finding 9: an answer that never reached the caller", () => {
    it("is revoked after a minute without a replay, not before", async () => {
      const { lease } = await replica.issuer.issue(order());
      await replica.issuer.undelivered(lease);
      await expect(replica.renewer.renew(lease, undefined, actorOf(), undefined)).rejects.toMatchObject({ reason: "LEASE_NOT_RENEWABLE" });
      await world.advance(59_000);
      await replica.clockwork.sweep();
      expect(await replica.lease(lease.id)).toMatchObject({ state: "ACTIVE", delivered: false });
      await world.advance(2000);
      await replica.clockwork.sweep();
      const ended = await until("the lease is gone", async () => (await replica.lease(lease.id)).state === "REVOKED" && replica.lease(lease.id));
      expect(ended.endCause).toBe("UNDELIVERED");
      expect(await target.has(lease.username)).toBe(false);
    });

    it("lives on once it was asked for again", async () => {
      const key = request();
      const { lease } = await replica.issuer.issue(order({ request: key }));
      await replica.issuer.undelivered(lease);
      const again = await replica.issuer.issue(order({ request: key }));
      await world.advance(120_000);
      await replica.clockwork.sweep();
      expect(await replica.lease(lease.id)).toMatchObject({ state: "ACTIVE", delivered: true });
      await worksAt(again);
    });

    it("lives on when the news comes after the replay was answered", async () => {
      const key = request();
      const { lease } = await replica.issuer.issue(order({ request: key }));
      await replica.issuer.issue(order({ request: key }));
      await replica.issuer.undelivered(lease);
      expect(await replica.lease(lease.id)).toMatchObject({ delivered: true, nextActionAt: lease.expireAt });
    });
  });
});
