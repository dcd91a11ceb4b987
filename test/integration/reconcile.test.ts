import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createLog } from "../../src/base/log.ts";
import type { LoginRef, Target } from "../../src/engines/engine.ts";
import { postgres } from "../../src/engines/postgres/definition.ts";
import { TargetGate } from "../../src/leases/gate.ts";
import { scanTargetWork } from "../../src/leases/scan.ts";
import type { Progress } from "../../src/operations/operations.ts";
import { OPTIONS } from "../conformance/engine.ts";
import { INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { until } from "../support/until.ts";
import { actorOf, leaseWorld, type LeaseTarget, type LeaseWorld, type Replica, ROLE, startLeaseTarget } from "../support/leases.ts";

const HOUR = 3_600_000;
const GRACE = 60_000;
const log = createLog("silent");

describe("reconciling a target with the ledger", () => {
  let server: LeaseTarget;
  let target: Target<unknown>;
  let world: LeaseWorld;
  let replica: Replica;
  let uid: string;

  beforeAll(async () => {
    server = await startLeaseTarget();
    target = postgres.open(server.config, server.password, { ...OPTIONS, instance: INSTANCE });
    world = await leaseWorld(server);
    // What openState() does at the start of a process.
    await world.database.query("insert into store_state (instance, epoch, system_identifier, timeline) values ($1, 1, '1', 1) on conflict do nothing", [
      INSTANCE,
    ]);
    replica = await world.replica();
    uid = replica.catalog.targets()[0]!.uid;
  }, 60_000);
  afterAll(async () => {
    await world?.close();
    await target?.close();
    await server?.cluster.stop();
  });

  const gateOf = (): TargetGate =>
    new TargetGate({
      db: replica.db,
      committer: replica.committer,
      open: async () => target,
      pathOf: () => "targets/db",
      addressOf: () => "db:5432",
      graceMs: GRACE,
      log,
      moveAfterMs: 0,
    });
  const issue = async () => (await replica.issuer.issue({ path: ROLE, ttlMs: HOUR, actor: actorOf(), request: undefined })).lease;

  async function scan(more: { dropOrphans?: boolean; names?: string[] } = {}): Promise<void> {
    const work = scanTargetWork({ ...replica, gate: gateOf(), due: replica.clockwork, open: async () => target, pathOf: () => "targets/db", graceMs: GRACE });
    const operation = { id: randomUUID(), createdAt: await world.now(), args: { targetUid: uid, dropOrphans: false, names: [], ...more } } as never;
    let progress: Progress | undefined = { cursor: null, done: 0, total: 0 };
    while (progress !== undefined) progress = await work.step(operation, progress, new AbortController().signal);
  }
  const findings = (name: string) => world.database.query<{ kind: string; state: string }>("select kind, state from finding where name = $1", [name]);

  /** A login that no row accounts for. */
  async function stray(): Promise<LoginRef> {
    const name = `lh_${INSTANCE}_stray_${randomUUID().replaceAll("-", "").slice(0, 16)}`;
    await server.sql(`create role ${name} login`);
    return { name, oid: undefined, systemIdentifier: undefined, ownedObjects: { kind: "refuse" } };
  }

  it("finds an orphan, keeps it, and drops it once it was seen a grace apart", async () => {
    const { name } = await stray();
    await scan({ dropOrphans: true });
    expect(await findings(name)).toEqual([{ kind: "ORPHAN", state: "OPEN" }]);
    expect(await server.has(name)).toBe(true);
    await world.advance(GRACE);
    await scan();
    expect(await server.has(name)).toBe(true);
    await scan({ dropOrphans: true });
    expect(await server.has(name)).toBe(false);
    expect(await findings(name)).toEqual([{ kind: "ORPHAN", state: "RESOLVED" }]);
  });

  it("an orphan that is seen again is on record once", async () => {
    const { name } = await stray();
    const raised = async (): Promise<number> =>
      (await world.database.query<{ n: number }>("select count(*)::int as n from audit_record where record->>'action' = 'finding.raise'"))[0]!.n;
    const seen = async (): Promise<Date> => (await world.database.query<{ at: Date }>("select last_seen as at from finding where name = $1", [name]))[0]!.at;
    await scan();
    const [records, first] = [await raised(), await seen()];
    expect(records).toBeGreaterThan(0);
    await world.advance(1000);
    await scan();
    expect(await raised()).toBe(records);
    expect((await seen()).getTime()).toBeGreaterThan(first.getTime());
    await scan({ names: [name] });
    expect(await raised()).toBe(records);
  });

  it("never takes a login with a live row, even one that is named", async () => {
    const lease = await issue();
    await world.database.query("update lease set state = 'PENDING' where id = $1", [lease.id]);
    await scan({ dropOrphans: true, names: [lease.username] });
    expect(await findings(lease.username)).toEqual([]);
    expect(await server.has(lease.username)).toBe(true);
    await world.database.query("update lease set state = 'ACTIVE' where id = $1", [lease.id]);
  });

  it("ends a lease whose login is missing", async () => {
    const lease = await issue();
    await server.sql(`drop role ${lease.username}`);
    await scan();
    expect(await findings(lease.username)).toEqual([{ kind: "LEASE_WITHOUT_LOGIN", state: "OPEN" }]);
    await until("it to have ended", async () => (await replica.lease(lease.id)).state === "REVOKED");
    expect((await replica.lease(lease.id)).endCause).toBe("MISSING");
  });

  it("a login whose renewal a failover undid lives as long as its lease again", async () => {
    const lease = await issue();
    await server.sql(`alter role ${lease.username} valid until '${new Date(Date.now() + 60_000).toISOString()}'`);
    await scan();
    await until("the schedule to have renewed it", async () => {
      await replica.clockwork.sweep();
      const again = await replica.lease(lease.id);
      return again.renewingTo === undefined && again.generation > lease.generation;
    });
    const seen = (await target.present!([lease.username])).get(lease.username)!;
    expect(seen.validForMs).toBeGreaterThan(HOUR - 5000);
    const { generation } = await replica.lease(lease.id);
    await scan();
    expect((await replica.lease(lease.id)).generation).toBe(generation);
  });

  it("a live lease whose login may not log in is found, and left so", async () => {
    const lease = await issue();
    await server.sql(`alter role ${lease.username} nologin`);
    await scan();
    expect(await findings(lease.username)).toEqual([{ kind: "LOGIN_DISABLED", state: "OPEN" }]);
    expect(await target.find(lease.username)).toMatchObject({ canLogin: false });
    expect((await replica.lease(lease.id)).state).toBe("ACTIVE");
    await server.sql(`alter role ${lease.username} login`);
    await world.advance(1000);
    await scan();
    expect(await findings(lease.username)).toEqual([{ kind: "LOGIN_DISABLED", state: "RESOLVED" }]);
  });

  it("a ledger restored from a backup puts the target in quarantine, drops nothing, and is released by hand", async () => {
    const gate = gateOf();
    await gate.check(uid);
    const { name } = await stray(); // issued by the history that was lost
    await gate.look(uid); // which also moved the witness on
    const marks = await world.database.query<{ mark: string }>("select mark from witness_mark order by at desc limit 1");
    // The restored ledger knows nothing of that.
    await world.database.query("delete from witness_mark where mark = $1", [marks[0]!.mark]);
    const restored = gateOf();
    await expect(restored.check(uid)).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "quarantined" } });
    await expect(scan({ dropOrphans: true, names: [name] })).rejects.toMatchObject({ metadata: { problem: "quarantined" } });
    expect(await server.has(name)).toBe(true);
    const before = await target.witness!();
    await restored.release(uid, actorOf("spiffe://acme.test/admin", "OperatorService/ReleaseQuarantine"));
    await restored.check(uid);
    expect((await target.witness!())!.epoch).toBe(before!.epoch + 1);
  });
});
