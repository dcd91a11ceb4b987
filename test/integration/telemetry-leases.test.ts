import { afterAll, beforeAll, expect, it } from "vitest";
import { APP, dataOf, inState, leaseWorld, type LeaseWorld, targetCluster } from "../support/lease-world.ts";
import type { TestCluster } from "../support/postgres.ts";
import { startTraceCollector, type TraceCollector } from "../support/trace-collector.ts";

let collector: TraceCollector;
let world: LeaseWorld;
let target: TestCluster;

beforeAll(async () => {
  [collector, world, target] = await Promise.all([startTraceCollector(), leaseWorld(), targetCluster()]);
  Object.assign(process.env, collector.env);
});
afterAll(async () => {
  await world?.close();
  await target?.remove();
  collector?.stop();
});

it("what the schedule does about leases has spans with its cause and the trace of who was issued the lease, and no secret", async () => {
  const broker = await world.start({ env: process.env });
  const role = await world.addTarget(broker, "main", target);
  const issued = await broker.as("app").issue(role, 1000);
  await inState(world, issued.lease!.path, "REVOKED");
  const [lease] = await world.store.query<{ trace: string }>("select trace_id as trace from lease where principal = $1", [APP]);
  await broker.stop();

  const traces = collector.text();
  for (const expected of ["lease.expire", "leasehold.cause", "expired", "leasehold.attempt", role]) expect(traces).toContain(expected);
  expect(lease!.trace).toMatch(/^[0-9a-f]{32}$/);
  expect(traces).toContain(lease!.trace);
  expect(traces).not.toContain(dataOf(issued)["password"]!);
});
