import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { OperationService } from "../../src/gen/leasehold/v1/operation_service_pb.ts";
import { Lease_EndCause as EndCause, Lease_State as State } from "../../src/gen/leasehold/v1/lease_pb.ts";
import { LeaseService } from "../../src/gen/leasehold/v1/lease_service_pb.ts";
import { Operation_State as OperationState } from "../../src/gen/leasehold/v1/operation_pb.ts";
import { Finding_Kind as Kind, OperatorService } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { type Broker, idOf, leaseWorld, type LeaseWorld, logins, refusal, targetCluster, works } from "../support/lease-world.ts";
import type { TestCluster } from "../support/postgres.ts";
import { until } from "../support/until.ts";

let world: LeaseWorld;
let broker: Broker;
let target: TestCluster;
let role: string;
let instance: string;

beforeAll(async () => {
  target = await targetCluster();
  world = await leaseWorld();
  broker = await world.start();
  role = await world.addTarget(broker, "main", target);
  instance = (await broker.as("admin").call(OperatorService.method.getServerInfo, {})).instance;
});
afterAll(async () => {
  await world?.close();
  await target?.remove();
});

const admin = () => broker.as("admin");
const { method } = OperatorService;

async function scan(more: { dropOrphans?: boolean; names?: string[] } = {}): Promise<void> {
  const { operation } = await admin().call(method.scanTarget, { path: "targets/main", ...more });
  await until("the scan to end", async () => {
    const { operation: now } = await admin().call(OperationService.method.getOperation, { path: operation!.path });
    return now!.state === OperationState.SUCCEEDED;
  });
}

test("a scan finds a login that no lease accounts for, keeps it, and drops it when it is named", async () => {
  const name = `lh_${instance}_stray_${randomUUID().replaceAll("-", "").slice(0, 12)}`;
  await target.query(`create role ${name} login`);
  await scan({ dropOrphans: true });
  const { findings } = await admin().call(method.listFindings, {});
  expect(findings).toMatchObject([{ kind: Kind.ORPHAN, target: "targets/main", name, resolution: "" }]);
  expect(await logins(target)).toContain(name);
  await scan({ names: [name] });
  expect(await logins(target)).not.toContain(name);
  expect((await admin().call(method.listFindings, {})).findings).toEqual([]);
  expect((await admin().call(method.listFindings, { all: true })).findings).toMatchObject([{ name, resolution: "dropped" }]);
});

test("who may not operate the target sees no finding of it, and starts no scan", async () => {
  await expect(broker.as("app").call(method.scanTarget, { path: "targets/main" })).rejects.toMatchObject({ reason: "PERMISSION_DENIED" });
  expect((await broker.as("app").call(method.listFindings, { all: true })).findings).toEqual([]);
});

test("lesson 5: a login that came back under an ended lease, as after a failover, is found by a scan and goes", async () => {
  const issued = await broker.as("app").issue(role);
  const { username } = issued.lease!;
  await broker.as("app").revoke(issued.lease!.path);
  await target.query(`create role ${username} login`);
  await scan();
  await until("the login to be gone again", async () => !(await logins(target)).includes(username));
  await until("the ledger to say so", async () => (await world.row(issued.lease!.path)).state === "REVOKED");
});

test(
  "a store restored from a backup: the target is in quarantine, nothing is issued or dropped there, revocation by hand works, and an operator's word ends it",
  { timeout: 60_000 },
  async () => {
    const before = await broker.as("app").issue(role);
    // The history that will be lost: a mark on the target, and a login.
    const lost = `lh_${instance}_lost_${randomUUID().replaceAll("-", "").slice(0, 12)}`;
    await target.query(`create role ${lost} login`);
    await world.store.query("delete from witness_mark");
    const restored = await world.start();
    const denied = await refusal(restored.as("app").issue(role));
    expect(denied).toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "quarantined" } });
    expect((await restored.as("admin").call(method.listQuarantines, {})).quarantines).toMatchObject([{ target: "targets/main", reason: "witness_unknown" }]);
    expect(await restored.as("app").revoke(before.lease!.path)).toMatchObject({ state: State.REVOKED });
    expect(await logins(target)).toContain(lost);

    const { operation } = await restored.as("admin").call(method.releaseQuarantine, { path: "targets/main", revokeUnknown: true });
    await until("what is unknown to be gone", async () => !(await logins(target)).includes(lost));
    expect(operation).toBeDefined();
    expect((await restored.as("admin").call(method.listQuarantines, {})).quarantines).toEqual([]);
    expect(await works(await restored.as("app").issue(role))).toBe(true);
    await restored.stop();
  },
);

test("only a lease whose revocation has failed may be forgotten; a target that is gone goes with all its leases", { timeout: 60_000 }, async () => {
  const gone = await targetCluster();
  const lostRole = await world.addTarget(broker, "gone", gone);
  const [one, two] = [await broker.as("app").issue(lostRole), await broker.as("app").issue(lostRole)];
  const forget = (path: string) => admin().call(LeaseService.method.forgetLease, { path, reason: "the server burnt down" });
  await expect(forget(one.lease!.path)).rejects.toMatchObject({ reason: "LEASE_NOT_FORGETTABLE" });
  await gone.remove();
  expect(await broker.as("app").revoke(one.lease!.path)).toMatchObject({ state: State.REVOKING });
  await expect(broker.as("app").call(LeaseService.method.forgetLease, { path: one.lease!.path, reason: "not mine to say" })).rejects.toMatchObject({
    reason: "PERMISSION_DENIED",
  });
  await until("a try to fail", async () => (await world.row(one.lease!.path)).attempts > 0);
  expect((await forget(one.lease!.path)).lease).toMatchObject({ state: State.REVOKED, endCause: EndCause.FORGOTTEN });
  expect(await world.events(one.lease!.path)).toEqual([20, 23]);

  const path = "targets/gone";
  await expect(admin().call(method.deleteTarget, { path, forgetLeases: true })).rejects.toMatchObject({ reason: "IN_USE", metadata: { by: "role" } });
  await admin().call(method.deleteRole, { path: lostRole });
  await expect(admin().call(method.deleteTarget, { path })).rejects.toMatchObject({ reason: "IN_USE", metadata: { by: "lease" } });
  await admin().call(method.deleteTarget, { path, forgetLeases: true });
  expect((await admin().call(LeaseService.method.getLease, { path: two.lease!.path })).lease).toMatchObject({
    state: State.REVOKED,
    endCause: EndCause.FORGOTTEN,
  });
  expect(await world.audited(two.lease!.path)).toContain("lease.forget");
  const rows = await world.store.query<{ due: string | null }>("select at as due from lease_due where lease_id = any ($1)", [
    [idOf(one.lease!.path), idOf(two.lease!.path)],
  ]);
  expect(rows.map((row) => row.due)).toEqual([null, null]);
});
