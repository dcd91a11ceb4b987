import { afterAll, beforeAll, expect, it } from "vitest";
import { APP, dataOf, idOf, inState, leaseWorld, type LeaseWorld, targetCluster } from "../support/lease-world.ts";
import type { TestCluster } from "../support/postgres.ts";
import { startTraceCollector, type TraceCollector } from "../support/trace-collector.ts";
import { until } from "../support/until.ts";

let collector: TraceCollector;
let world: LeaseWorld;
let target: TestCluster;
let role: string;
let password: string;
let problem: string;
let traces: string;

/** One lease that expires, and one whose login somebody has renamed when it does; by a broker that sends its spans when it stops. */
beforeAll(async () => {
  [collector, world, target] = await Promise.all([startTraceCollector(), leaseWorld(), targetCluster()]);
  Object.assign(process.env, collector.env);
  const broker = await world.start({ env: process.env });
  role = await world.addTarget(broker, "main", target);
  const issued = await broker.as("app").issue(role, 1000);
  password = dataOf(issued)["password"]!;
  await inState(world, issued.lease!.path, "REVOKED");

  const renamed = await broker.as("app").issue(role, 1000);
  await target.query(`alter role "${dataOf(renamed)["username"]!}" rename to renamed_by_somebody`);
  problem = await until("its revocation fails", async () => {
    const [lease] = await world.store.query<{ problem: string | null }>("select problem from lease where id = $1", [idOf(renamed.lease!.path)]);
    return lease!.problem ?? undefined;
  });
  await broker.stop();
  traces = collector.text();
});
afterAll(async () => {
  await world?.close();
  await target?.remove();
  collector?.stop();
});

it("what the schedule does about leases has spans with its cause and the trace of who was issued the lease, and no secret", async () => {
  const [lease] = await world.store.query<{ trace: string }>("select trace_id as trace from lease where principal = $1 order by issued_at", [APP]);
  for (const expected of ["lease.expire", "leasehold.cause", "expired", "leasehold.attempt", role]) expect(traces).toContain(expected);
  expect(lease!.trace).toMatch(/^[0-9a-f]{32}$/);
  expect(traces).toContain(lease!.trace);
  expect(traces).not.toContain(password);
});

it("what could not be done says in its span what stood in the way", () => {
  expect(traces).toContain("leasehold.problem");
  expect(traces).toContain(problem);
});
