import { afterAll, beforeAll, expect, test } from "vitest";
import { Lease_EndCause as EndCause, Lease_State as State } from "../../src/gen/leasehold/v1/lease_pb.ts";
import { CredentialService } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { LeaseService } from "../../src/gen/leasehold/v1/lease_service_pb.ts";
import type { Event } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import { PolicySchema, PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { OperatorService } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { OperationService } from "../../src/gen/leasehold/v1/operation_service_pb.ts";
import { Operation_State } from "../../src/gen/leasehold/v1/operation_pb.ts";
import { durationFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { fromJson } from "@bufbuild/protobuf";
import { randomUUID } from "node:crypto";
import {
  APP,
  type Broker,
  dataOf,
  hold,
  inState,
  leaseWorld,
  type LeaseWorld,
  login,
  logins,
  OTHER,
  refusal,
  targetCluster,
  works,
} from "../support/lease-world.ts";
import type { TestCluster } from "../support/postgres.ts";
import { until } from "../support/until.ts";

const ISSUED = 20;
const RENEWED = 21;
const EXPIRED = 22;
const REVOKED = 23;

let world: LeaseWorld;
let broker: Broker;
let target: TestCluster;
let role: string;

beforeAll(async () => {
  [world, target] = await Promise.all([leaseWorld(), targetCluster()]);
  broker = await world.start();
  role = await world.addTarget(broker, "main", target);
});

afterAll(async () => {
  await world?.close();
  await target?.remove();
});

/** The database's clock stands `ms` ahead while `work` runs. */
async function ahead<T>(ms: number, work: () => Promise<T>): Promise<T> {
  await world.shiftClock(ms);
  try {
    return await work();
  } finally {
    await world.shiftClock(0);
  }
}

/** A policy denies the app this capability while `work` runs. */
async function denying(capability: string, work: () => Promise<void>): Promise<void> {
  const policy = { name: "denying", principals: [APP], rules: [{ paths: [role], deny: [capability] }] };
  await broker.as("admin").call(PolicyService.method.putPolicy, { policy: fromJson(PolicySchema, policy) });
  try {
    await work();
  } finally {
    await broker.as("admin").call(PolicyService.method.deletePolicy, { path: "policies/denying" });
  }
}

test("a lease: the login works, sessions and login end with it, and each step is in the audit and the change log", async () => {
  const issued = await broker.as("app").issue(role, 60_000);
  const { path, username } = issued.lease!;
  expect(issued.lease).toMatchObject({ state: State.ACTIVE, principal: APP, rolePath: role });
  const session = await login(issued);
  expect((await session.client.query("select current_user as me")).rows).toEqual([{ me: username }]);

  await ahead(61_000, async () => {
    await inState(world, path, "REVOKED");
    await session.ended;
  });
  expect(await works(issued)).toBe(false);
  expect(await logins(target)).not.toContain(username);
  expect(await broker.as("app").lease(path)).toMatchObject({ state: State.REVOKED, endCause: EndCause.EXPIRED });
  expect(await world.events(path)).toEqual([ISSUED, EXPIRED]);
  expect(await world.audited(path)).toEqual(expect.arrayContaining(["CredentialService/IssueCredential", "lease.end"]));
});

test("a lease ends at its expire_time and not before, by the database's clock", async () => {
  const issued = await broker.as("app").issue(role, 2000);
  const row = await inState(world, issued.lease!.path, "REVOKED");
  const [record] = await world.store.query<{ at: Date; ended: Date }>(
    "select c.at, l.ended_at as ended from change_log c join lease l on l.id = c.lease_id where l.username = $1 and c.type = 22",
    [issued.lease!.username],
  );
  expect(record!.at.getTime()).toBeGreaterThanOrEqual(row.expire_at.getTime());
});

test("finding 10: a process whose clock is five minutes ahead revokes nothing early", async () => {
  const issued = await broker.as("app").issue(role, 60_000);
  const real = Date.now;
  const [before] = await world.store.query<{ now: Date }>("select leasehold_now() as now");
  Date.now = () => real() + 300_000;
  try {
    // Every sweep and every estimate of the database's clock goes by the wrong process clock now; one lease that is really due shows that they run.
    const due = await broker.as("app").issue(role, 1000);
    await inState(world, due.lease!.path, "REVOKED");
    expect(await world.row(issued.lease!.path)).toMatchObject({ state: "ACTIVE" });
    expect((await world.row(due.lease!.path)).expire_at.getTime()).toBeGreaterThanOrEqual(before!.now.getTime() + 1000);
    expect(await works(issued)).toBe(true);
  } finally {
    Date.now = real;
  }
});

test("a renewal moves the end, and the target's own VALID UNTIL with it", async () => {
  const issued = await broker.as("app").issue(role, 60_000);
  const renewed = await broker.as("app").renew(issued.lease!.path, 300_000);
  expect(timestampMs(renewed.expireTime!)).toBeGreaterThan(timestampMs(issued.lease!.expireTime!));
  const [found] = await target.query<{ until: Date }>("select rolvaliduntil as until from pg_roles where rolname = $1", [issued.lease!.username]);
  expect(found!.until.getTime()).toBeGreaterThanOrEqual(timestampMs(renewed.expireTime!));
  expect(found!.until.getTime()).toBeLessThan(timestampMs(renewed.expireTime!) + 60_000);
  expect(await world.events(issued.lease!.path)).toEqual([ISSUED, RENEWED]);
  await ahead(61_000, async () => {
    const due = await broker.as("app").issue(role, 1000);
    await inState(world, due.lease!.path, "REVOKED");
    expect(await world.row(issued.lease!.path)).toMatchObject({ state: "ACTIVE" });
  });
  expect(await works(issued)).toBe(true);
});

test("lesson 11: a renewal is counted from now, never reaches beyond max_expire_time, never shortens, and zero is the role's default", async () => {
  const issued = await broker.as("app").issue(role, 60_000);
  const { path } = issued.lease!;
  const limited = await broker.as("app").call(LeaseService.method.renewLease, { path, increment: durationFromMs(3_600_000) });
  expect(limited.limitedBy).toBe("max_expire_time");
  expect(timestampMs(limited.lease!.expireTime!)).toBe(timestampMs(issued.lease!.maxExpireTime!));
  const zero = await broker.as("app").call(LeaseService.method.renewLease, { path, increment: durationFromMs(0) });
  expect(timestampMs(zero.lease!.expireTime!)).toBe(timestampMs(issued.lease!.maxExpireTime!));
  expect(await world.row(path)).toMatchObject({ state: "ACTIVE", renewing_to: null });
});

test("lesson 11: what has expired or was revoked can't be renewed", async () => {
  const issued = await broker.as("app").issue(role);
  await broker.as("app").revoke(issued.lease!.path);
  expect(await refusal(broker.as("app").renew(issued.lease!.path))).toMatchObject({ reason: "LEASE_NOT_RENEWABLE" });
  expect(await world.row(issued.lease!.path)).toMatchObject({ state: "REVOKED" });
  expect(await world.events(issued.lease!.path)).toEqual([ISSUED, REVOKED]);
});

test("lesson 11: renewals that race a revocation never bring a lease back", async () => {
  const all = await Promise.all(Array.from({ length: 6 }, () => broker.as("app").issue(role)));
  await Promise.all(
    all.map(async ({ lease }) => {
      const renewals = Array.from({ length: 4 }, () =>
        broker
          .as("app")
          .renew(lease!.path, 300_000)
          .catch(() => undefined),
      );
      await broker.as("app").revoke(lease!.path);
      await Promise.all(renewals);
    }),
  );
  for (const issued of all) {
    await inState(world, issued.lease!.path, "REVOKED");
    expect(await works(issued)).toBe(false);
    expect((await world.events(issued.lease!.path)).at(-1)).toBe(REVOKED);
  }
});

test("lesson 5: a login that is already gone is a success", async () => {
  const issued = await broker.as("app").issue(role);
  await target.query(`drop role ${issued.lease!.username}`);
  expect(await broker.as("app").revoke(issued.lease!.path)).toMatchObject({ state: State.REVOKED });
});

test("lesson 7: a lease is revoked whose role has been deleted", async () => {
  const path = "credentials/postgres/main/short-lived";
  const { role: known } = await broker.as("admin").call(OperatorService.method.getRole, { path: role });
  await broker.as("admin").call(OperatorService.method.putRole, { role: { ...known!, path, uid: "", etag: "" } });
  const issued = await broker.as("app").issue(path);
  await broker.as("admin").call(OperatorService.method.deleteRole, { path });
  await ahead(61_000, () => inState(world, issued.lease!.path, "REVOKED"));
  expect(await logins(target)).not.toContain(issued.lease!.username);
  expect(await works(issued)).toBe(false);
});

test("lesson 7: a target can't be taken away from under its leases", async () => {
  const path = await world.addTarget(broker, "lone", target);
  const issued = await broker.as("app").issue(path);
  const deleteTarget = (): Promise<unknown> => broker.as("admin").call(OperatorService.method.deleteTarget, { path: "targets/lone" });
  expect(await refusal(deleteTarget())).toMatchObject({ reason: "IN_USE", metadata: { by: "role" } });
  await broker.as("admin").call(OperatorService.method.deleteRole, { path });
  expect(await refusal(deleteTarget())).toMatchObject({ reason: "IN_USE", metadata: { by: "lease" } });
  expect(await broker.as("app").revoke(issued.lease!.path)).toMatchObject({ state: State.REVOKED });
});

test("lesson 12: a TTL above the maximum is refused, and the refusal names the limit", async () => {
  expect(await refusal(broker.as("app").issue(role, 601_000))).toMatchObject({
    reason: "TTL_ABOVE_MAXIMUM",
    metadata: { maximum: "600s", source: "role.max_ttl" },
  });
  expect(await refusal(broker.as("app").issue(role, 1))).toMatchObject({ reason: "REQUEST_INVALID" });
});

test("lesson 13: renew_time is jittered, within 5 % below two thirds", async () => {
  const times = await Promise.all(
    Array.from({ length: 12 }, async () => {
      const { lease } = await broker.as("app").issue(role, 600_000);
      return timestampMs(lease!.renewTime!) - timestampMs(lease!.issueTime!);
    }),
  );
  for (const time of times) {
    expect(time).toBeLessThanOrEqual(400_000);
    expect(time).toBeGreaterThanOrEqual(380_000 - 1);
  }
  expect(new Set(times).size).toBeGreaterThan(1);
});

test("lesson 16: who only knows a lease's id is denied in the words of a lease that doesn't exist", async () => {
  const issued = await broker.as("app").issue(role);
  const other = broker.as("otherApp");
  const missing = `leases/${randomUUID()}`;
  for (const act of [(path: string) => other.lease(path), (path: string) => other.renew(path), (path: string) => other.revoke(path)]) {
    const [known, unknown] = [await refusal(act(issued.lease!.path)), await refusal(act(missing))];
    expect(known).toMatchObject({ reason: "PERMISSION_DENIED", message: unknown.message, code: unknown.code });
    expect({ ...known.metadata, path: "" }).toEqual({ ...unknown.metadata, path: "" });
  }
  const listed = await other.call(LeaseService.method.listLeases, {});
  expect(listed.leases).toEqual([]);
  expect(await works(issued)).toBe(true);
  expect(await world.row(issued.lease!.path)).toMatchObject({ state: "ACTIVE" });
});

test("lesson 16: the owner needs no rule to look and to revoke, but a rule that denies wins over him", async () => {
  const issued = await broker.as("app").issue(role);
  expect(await broker.as("app").lease(issued.lease!.path)).toMatchObject({ principal: APP });
  await denying("revoke", async () => {
    expect(await refusal(broker.as("app").revoke(issued.lease!.path))).toMatchObject({ reason: "PERMISSION_DENIED" });
  });
  expect(await broker.as("app").revoke(issued.lease!.path)).toMatchObject({ state: State.REVOKED });
});

test("finding 9: a replay gives the same credential, another body CONFLICT, an ended lease LEASE_ENDED", async () => {
  const id = randomUUID();
  const first = await broker.as("app").issue(role, 60_000, id);
  const again = await broker.as("app").issue(role, 60_000, id);
  expect(again.lease!.path).toBe(first.lease!.path);
  expect(dataOf(again)).toEqual(dataOf(first));
  expect(await refusal(broker.as("app").issue(role, 61_000, id))).toMatchObject({ reason: "CONFLICT" });
  expect(await world.audited(first.lease!.path)).toContain("lease.deliver");
  await broker.as("app").revoke(first.lease!.path);
  expect(await refusal(broker.as("app").issue(role, 60_000, id))).toMatchObject({ reason: "LEASE_ENDED" });
  // Another principal's equal id is another id.
  expect(await refusal(broker.as("otherApp").issue(role, 60_000, id))).toMatchObject({ reason: "PERMISSION_DENIED" });
});

test("finding 9: a replay is authorized anew", async () => {
  const id = randomUUID();
  const first = await broker.as("app").issue(role, 60_000, id);
  await denying("issue", async () => {
    expect(await refusal(broker.as("app").issue(role, 60_000, id))).toMatchObject({ reason: "PERMISSION_DENIED" });
  });
  expect((await broker.as("app").issue(role, 60_000, id)).lease!.path).toBe(first.lease!.path);
});

test("finding 9: the same request twice at once makes one lease", async () => {
  const id = randomUUID();
  const answers = await Promise.all(
    Array.from({ length: 5 }, () =>
      broker
        .as("app")
        .issue(role, 60_000, id)
        .catch((error: { reason?: string }) => error.reason),
    ),
  );
  const paths = answers.flatMap((answer) => (typeof answer === "object" ? [answer.lease!.path] : []));
  expect(new Set(paths).size).toBe(1);
  for (const answer of answers) if (typeof answer !== "object") expect(answer).toBe("REQUEST_IN_FLIGHT");
  const [count] = await world.store.query<{ n: number }>("select count(*)::int as n from lease where request_id = $1", [id]);
  expect(count!.n).toBe(1);
});

/** Issues so that the answer reaches nobody: the target holds the creation until the caller has hung up. */
async function issueAndHangUp(requestId: string): Promise<string> {
  const holder = await hold(target);
  const { raw, answer } = broker.as("app").begin(CredentialService.method.issueCredential, { path: role, requestId, ttl: durationFromMs(600_000) });
  answer.catch(() => undefined);
  const id = await until("the lease to be pending", async () => {
    const [row] = await world.store.query<{ id: string }>("select id from lease where request_id = $1 and state = 'PENDING'", [requestId]);
    return row?.id;
  });
  expect(await refusal(broker.as("app").issue(role, 600_000, requestId))).toMatchObject({ reason: "REQUEST_IN_FLIGHT" });
  raw.cancel();
  await answer.catch(() => undefined);
  await holder.release();
  return `leases/${id}`;
}

test("finding 9: an answer that reached nobody is revoked after a minute, unless it is asked for again", async () => {
  const [lost, found] = [randomUUID(), randomUUID()];
  const paths = [await issueAndHangUp(lost), await issueAndHangUp(found)];
  for (const path of paths) {
    const row = await until("it to be undelivered", async () => {
      const now = await world.row(path);
      return now.state === "ACTIVE" && !now.delivered ? now : undefined;
    });
    expect(row.next_action_at!.getTime()).toBeLessThanOrEqual(row.expire_at.getTime());
  }
  const replayed = await broker.as("app").issue(role, 600_000, found);
  expect(replayed.lease!.path).toBe(paths[1]);
  await ahead(61_000, () => inState(world, paths[0]!, "REVOKED"));
  expect(await world.row(paths[0]!)).toMatchObject({ end_cause: "UNDELIVERED" });
  expect(await world.row(paths[1]!)).toMatchObject({ state: "ACTIVE" });
  expect(await works(replayed)).toBe(true);
  expect(await refusal(broker.as("app").issue(role, 600_000, lost))).toMatchObject({ reason: "LEASE_ENDED" });
});

test("a watch sees a lease issued, renewed, expired and revoked, in order, by its role's path and by its own; nobody else's watch does", async () => {
  const all = await broker.watch("app", ["credentials/postgres/main/**"]);
  const [kept, ended] = [await broker.as("app").issue(role, 30_000), await broker.as("app").issue(role, 30_000)];
  const one = await broker.watch("app", [kept.lease!.path]);
  await broker.as("app").renew(kept.lease!.path, 40_000);
  await broker.as("app").revoke(ended.lease!.path);
  await ahead(41_000, () => inState(world, kept.lease!.path, "REVOKED"));
  const of = (events: readonly Event[], path: string): Event[] => events.filter((event) => event.leasePath === path);
  await until("the last event", () => of(one, kept.lease!.path).some((event) => event.type === EXPIRED));
  await until("the last event", () => of(all, kept.lease!.path).some((event) => event.type === EXPIRED));
  expect(of(all, kept.lease!.path).map((event) => event.type)).toEqual([ISSUED, RENEWED, EXPIRED]);
  expect(of(all, ended.lease!.path).map((event) => event.type)).toEqual([ISSUED, REVOKED]);
  expect(one.map((event) => [event.type, event.path, event.principal, event.leasePath])).toEqual(
    [RENEWED, EXPIRED].map((type) => [type, role, APP, kept.lease!.path]),
  );
  const revisions = all.map((event) => event.revision);
  expect(revisions).toEqual(revisions.toSorted((a, b) => Number(a - b)));
  await expect(broker.watch("otherApp", ["credentials/postgres/main/**"])).rejects.toMatchObject({ reason: "PERMISSION_DENIED" });
  await expect(broker.watch("otherApp", [kept.lease!.path])).rejects.toMatchObject({ reason: "PERMISSION_DENIED" });
});

test("lesson 17: leases of a prefix end in the background, each one audited", async () => {
  const [mine, prefix] = [await world.addTarget(broker, "bulk", target), "credentials/postgres/bulk/"];
  const leases = await Promise.all(Array.from({ length: 12 }, () => broker.as("app").issue(mine)));
  const outside = await broker.as("app").issue(role);
  const { operation } = await broker.as("admin").call(LeaseService.method.revokeLeases, { prefix });
  const ended = await until("the operation to end", async () => {
    const { operation: now } = await broker.as("admin").call(OperationService.method.getOperation, { path: operation!.path });
    return now!.state === Operation_State.RUNNING ? undefined : now!;
  });
  expect(ended).toMatchObject({ state: Operation_State.SUCCEEDED, done: 12n, total: 12n });
  for (const { lease } of leases) {
    expect(await world.row(lease!.path)).toMatchObject({ state: "REVOKED", end_cause: "REVOKED" });
    expect(await world.audited(lease!.path)).toEqual(expect.arrayContaining(["CredentialService/IssueCredential", "lease.end"]));
    expect(await world.events(lease!.path)).toEqual([ISSUED, REVOKED]);
  }
  expect(await world.row(outside.lease!.path)).toMatchObject({ state: "ACTIVE" });
});

test("leases of a principal are revoked only as far as the caller may revoke them", async () => {
  const issued = await broker.as("app").issue(role);
  expect(await refusal(broker.as("otherApp").call(LeaseService.method.revokeLeases, { principal: APP }))).toMatchObject({ reason: "PERMISSION_DENIED" });
  const none = await broker.as("admin").call(LeaseService.method.revokeLeases, { principal: OTHER });
  const { operation: over } = await broker.as("admin").call(OperationService.method.waitOperation, { path: none.operation!.path });
  expect(over).toMatchObject({ state: Operation_State.SUCCEEDED, total: 0n });
  expect(await world.row(issued.lease!.path)).toMatchObject({ state: "ACTIVE" });
  const all = await broker.as("admin").call(LeaseService.method.revokeLeases, { principal: APP });
  await until("it to end", async () => {
    const { operation } = await broker.as("admin").call(OperationService.method.getOperation, { path: all.operation!.path });
    return operation!.state === Operation_State.SUCCEEDED;
  });
  const left = await world.store.query("select id from lease where principal = $1 and state in ('PENDING', 'ACTIVE', 'REVOKING')", [APP]);
  expect(left).toEqual([]);
  expect(await logins(target)).toEqual([]);
});
