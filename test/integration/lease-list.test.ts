import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createLog } from "../../src/base/log.ts";
import { type LeaseQuery, listVisibleLeases } from "../../src/leases/list.ts";
import { revokeLeasesWork } from "../../src/leases/revoke-many.ts";
import { LIVE_STATES, type LeaseRecord } from "../../src/model/lease.ts";
import { Operations } from "../../src/operations/operations.ts";
import { type LeaseCursor, leasePage, type RevocableLease, revocableLeases } from "../../src/store/leases.ts";
import { findOperation, type OperationRecord } from "../../src/store/operations.ts";
import { actorOf, leaseWorld, type LeaseTarget, type LeaseWorld, OWNER, type Replica, ROLE, startLeaseTarget } from "../support/leases.ts";
import { until } from "../support/until.ts";

const HOUR = 3_600_000;
const OTHER = "spiffe://acme.test/ns/b/sa/other";

describe("many leases", () => {
  let target: LeaseTarget;
  let world: LeaseWorld;
  let replica: Replica;

  beforeAll(async () => {
    target = await startLeaseTarget();
    world = await leaseWorld(target);
    replica = await world.replica();
    for (const path of ["credentials/postgres/b/ro", "credentials/postgres/c/ro", "credentials/postgres/d/ro"]) await world.putRole(path, "db", target.role);
  });
  afterAll(async () => {
    await world?.close();
    await target?.cluster.stop();
  });

  /** Rows alone, for what never asks the target: 10 at each instant, so that ids must break ties. */
  const rows = async (count: number, path: string, principal: string, state = "ACTIVE", stalled = false): Promise<void> => {
    const uid = replica.catalog.target("db")!.uid;
    await world.database.query(
      `insert into lease (id, namespace_id, path, target_uid, principal, state, username, owned_objects, default_ttl_ms, issued_at, expire_at, renew_at, max_expire_at, deadline_at, next_action_at, stalled)
       select gen_random_uuid(), 1, $2, $3, $4, $5, 'lh_test_row_' || i, '{"kind":"refuse"}', 1, date_trunc('milliseconds', now()) + (i / 10) * interval '1 ms', 'infinity', now(), now(), now(), null, $6
         from generate_series(1, $1) i`,
      [count, path, uid, principal, state, stalled],
    );
  };
  const query = (more: Partial<LeaseQuery>): LeaseQuery => ({
    scope: undefined,
    principal: "",
    states: LIVE_STATES,
    stalled: false,
    viewer: "spiffe://acme.test/nobody",
    allowed: [{ prefix: "credentials/", exact: false }],
    may: () => true,
    after: undefined,
    pageSize: 100,
    ...more,
  });
  const all = async (more: Partial<LeaseQuery>): Promise<LeaseRecord[]> => {
    const found: LeaseRecord[] = [];
    let after: LeaseCursor | undefined;
    do {
      const page = await listVisibleLeases(replica.db, query({ ...more, after }));
      found.push(...page.items);
      after = page.next;
    } while (after !== undefined);
    return found;
  };

  describe("listing", () => {
    beforeAll(async () => {
      await rows(250, "credentials/postgres/x/one", OWNER);
      await rows(30, "credentials/postgres/x/two", OTHER);
      await rows(7, "credentials/postgres/x/two", OWNER, "REVOKED");
      await rows(3, "credentials/postgres/y/three", OTHER, "REVOKING", true);
    });
    afterAll(() => world.database.query("delete from lease where username like 'lh_test_row_%'"));

    it("shows each once, newest first, over pages of any size", async () => {
      for (const pageSize of [1000, 100, 33]) {
        const found = await all({ pageSize });
        expect(found).toHaveLength(283);
        expect(new Set(found.map((lease) => lease.id)).size).toBe(283);
        const sorted = found.toSorted((a, b) => b.issuedAt - a.issuedAt || (a.id < b.id ? 1 : -1));
        expect(found.map((lease) => lease.id)).toEqual(sorted.map((lease) => lease.id));
      }
    });

    it("shows what the filter asks for", async () => {
      expect(await all({ scope: { prefix: "credentials/postgres/x/", exact: false } })).toHaveLength(280);
      expect(await all({ scope: { prefix: "credentials/postgres/x/two", exact: true } })).toHaveLength(30);
      expect(await all({ principal: OTHER })).toHaveLength(33);
      expect(await all({ principal: OTHER, scope: { prefix: "credentials/postgres/y/", exact: false } })).toHaveLength(3);
      expect(await all({ states: ["REVOKED"] })).toHaveLength(7);
      expect(await all({ stalled: true })).toHaveLength(3);
    });

    it("finding 32: shows no more than may be seen: one's own, and what the rules allow, row by row", async () => {
      expect(await all({ allowed: [] })).toEqual([]);
      expect(await all({ allowed: [], viewer: OTHER })).toHaveLength(33);
      expect(await all({ allowed: [], viewer: OTHER, principal: OWNER })).toEqual([]);
      const allowed = [{ prefix: "credentials/postgres/y/", exact: false }];
      expect(await all({ allowed })).toHaveLength(3);
      expect(await all({ allowed, viewer: OWNER })).toHaveLength(253);
      expect(await all({ may: (lease) => lease.path.endsWith("/two"), pageSize: 7 })).toHaveLength(30);
    });

    it("finding 32: looks at so many rows for a page and no more; the page is short, and the next one goes on", async () => {
      const nothing = {
        range: undefined,
        principal: "",
        states: LIVE_STATES,
        stalled: true,
        allowed: [{ from: "credentials/postgres/x/", to: "credentials/postgres/x0" }],
        viewer: "",
      };
      let [pages, after] = [0, undefined as LeaseCursor | undefined];
      do {
        const page = await leasePage(replica.db, nothing, after, 100, 50);
        expect(page.leases).toEqual([]);
        pages++;
        after = page.next;
      } while (after !== undefined);
      expect(pages).toBe(6); // 290 rows by 50
    });
  });

  describe("what RevokeLeases goes through", () => {
    beforeAll(async () => {
      await rows(25, "credentials/postgres/x/one", OWNER);
      await rows(25, "credentials/postgres/x/one", OTHER);
      await rows(10, "credentials/postgres/x/two", OTHER);
      await rows(10, "credentials/postgres/x/two", OWNER, "REVOKING");
      await rows(10, "credentials/postgres/x0", OWNER);
      await rows(10, "credentials/postgres/y/three", OWNER);
    });
    afterAll(() => world.database.query("delete from lease where username like 'lh_test_row_%'"));

    const through = async (filter: object, page: number): Promise<RevocableLease[]> => {
      const found: RevocableLease[] = [];
      let some: RevocableLease[];
      do {
        some = await revocableLeases(replica.db, { from: "", to: "", principal: "", issuedBefore: Date.now() + HOUR, ...filter }, found.at(-1), page);
        found.push(...some);
      } while (some.length === page);
      return found;
    };

    it("has each once, over pages of any size, by path and principal, and none outside the prefix", async () => {
      const folder = { from: "credentials/postgres/x/", to: "credentials/postgres/x0" };
      for (const page of [1, 7, 500]) {
        const found = await through(folder, page);
        expect(new Set(found.map((lease) => lease.id)).size).toBe(60);
        expect(found.map((lease) => `${lease.path} ${lease.principal}`)).toEqual(found.map((lease) => `${lease.path} ${lease.principal}`).toSorted());
      }
      expect(await through({ ...folder, principal: OTHER }, 7)).toHaveLength(35);
      expect(await through({ from: "credentials/postgres/x/two", to: "credentials/postgres/x/two!" }, 7)).toHaveLength(10);
      expect(await through({}, 7)).toHaveLength(80);
      expect(await through({ issuedBefore: 0 }, 7)).toEqual([]);
    });
  });

  describe("revoking", () => {
    const issue = async (path = ROLE, principal = OWNER): Promise<LeaseRecord> =>
      (await replica.issuer.issue({ path, ttlMs: HOUR, actor: actorOf(principal), request: undefined })).lease;
    const operationsOf = (may: (principal: string, path: string) => boolean): Operations => {
      const operations = new Operations(replica.db, replica.committer, createLog("silent"));
      operations.register(revokeLeasesWork(replica.db, replica.revoker, may, () => false));
      return operations;
    };
    const start = async (operations: Operations, args: object): Promise<string> => {
      const filter = { from: "", to: "", principal: "", issuedBefore: Math.ceil(replica.clock.now()) + 1, ...args };
      return (await operations.start("revoke-leases", "credentials", filter, actorOf("spiffe://acme.test/admin", "LeaseService/RevokeLeases"), undefined))
        .operation.id;
    };
    const range = (folder: string): object => ({ from: `credentials/postgres/${folder}/`, to: `credentials/postgres/${folder}0` });
    const ended = (id: string): Promise<NonNullable<Awaited<ReturnType<typeof findOperation>>>> =>
      until("the operation has ended", async () => {
        const operation = await findOperation(replica.db, id);
        return operation?.state !== "RUNNING" && operation;
      });
    const state = async ({ id }: LeaseRecord): Promise<string> => (await replica.lease(id)).state;

    beforeAll(() => {
      replica.clockwork.start();
    });

    it("lesson 17: ends every lease of a prefix, each with its own record, and no other", async () => {
      const leases = await Promise.all(Array.from({ length: 5 }, () => issue("credentials/postgres/b/ro")));
      const bystander = await issue();
      const operations = operationsOf(() => true);
      const operation = await ended(await start(operations, range("b")));
      expect(operation).toMatchObject({ state: "SUCCEEDED", done: 5, total: 5 });
      for (const lease of leases) {
        expect(await replica.lease(lease.id)).toMatchObject({ state: "REVOKED", endCause: "REVOKED" });
        expect(await target.has(lease.username)).toBe(false);
        expect(await world.actions(lease.id)).toEqual(["CredentialService/IssueCredential", "lease.end"]);
      }
      expect(await state(bystander)).toBe("ACTIVE");
      await operations.stop();
    });

    it("ends those of a principal only as far as who asked may revoke them, and none that were issued later", async () => {
      const [mine, forbidden] = [await issue("credentials/postgres/c/ro", OTHER), await issue(ROLE, OTHER)];
      const before = Math.ceil(replica.clock.now());
      await world.advance(10);
      const later = await issue("credentials/postgres/c/ro", OTHER);
      const operations = operationsOf((principal, path) => principal === "spiffe://acme.test/admin" && path.startsWith("credentials/postgres/c/"));
      const operation = await ended(await start(operations, { principal: OTHER, issuedBefore: before }));
      expect(operation).toMatchObject({ state: "SUCCEEDED", done: 1 });
      expect([await state(mine), await state(forbidden), await state(later)]).toEqual(["REVOKED", "ACTIVE", "ACTIVE"]);
      await operations.stop();
    });

    it.each([
      ["", (last: LeaseRecord) => ({ after: "", at: { id: last.id, path: last.path, principal: last.principal } })],
      [", an older one too", (last: LeaseRecord) => ({ after: last.id })],
    ])("is taken up by another replica where the first one left it%s", async (_, cursorAt) => {
      const leases = await Promise.all(Array.from({ length: 3 }, () => issue("credentials/postgres/d/ro")));
      const dead = operationsOf(() => true);
      await dead.stop(); // it still writes operations, but works on none
      const id = await start(dead, range("d"));
      const [marked] = leases.toSorted((a, b) => (a.id < b.id ? -1 : 1));
      await replica.revoker.mark(marked!, actorOf());
      await world.database.query("update operation set cursor = $2::jsonb, total = 3, claimed_until = clock_timestamp() - interval '1 s' where id = $1", [
        id,
        JSON.stringify(cursorAt(marked!)),
      ]);
      const next = operationsOf(() => true);
      next.look();
      expect(await ended(id)).toMatchObject({ state: "SUCCEEDED", done: 3, total: 3 });
      for (const lease of leases) expect(await state(lease)).toBe("REVOKED");
      await next.stop();
    });

    it("leaves a cursor by which a replica of an older version, which goes by an id, begins again", async () => {
      const lease = await issue("credentials/postgres/d/ro");
      const work = revokeLeasesWork(
        replica.db,
        replica.revoker,
        () => true,
        () => false,
      );
      const filter = { ...range("d"), principal: "", issuedBefore: Date.now() + HOUR };
      const operation = { id: randomUUID(), principal: "spiffe://acme.test/admin", args: filter } as unknown as OperationRecord;
      const first = await work.step(operation, { cursor: null, done: 0, total: 0 }, new AbortController().signal);
      expect(JSON.parse(JSON.stringify(first))).toEqual({ cursor: { after: "" }, done: 0, total: 1 });
      expect(await work.step(operation, first!, new AbortController().signal)).toMatchObject({ cursor: { after: null }, total: 1 });
      await until("it has ended", async () => (await state(lease)) === "REVOKED");
    });

    it("ends, and says how far it came, when a target can't be asked; the schedule goes on", async () => {
      const lease = await issue("credentials/postgres/b/ro");
      const name = randomUUID().slice(0, 8);
      await target.sql(`alter role ${lease.username} rename to lh_test_other_${name}`);
      const operations = operationsOf(() => true);
      const operation = await ended(await start(operations, range("b")));
      expect(operation.state).toBe("SUCCEEDED");
      expect(await replica.lease(lease.id)).toMatchObject({ state: "REVOKING", problem: "role_renamed" });
      await target.sql(`alter role lh_test_other_${name} rename to ${lease.username}`);
      await until("the schedule has done it", async () => (await state(lease)) === "REVOKED");
      await operations.stop();
    });
  });
});
