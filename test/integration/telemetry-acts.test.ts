import { fromJson } from "@bufbuild/protobuf";
import { afterAll, beforeAll, expect, it } from "vitest";
import { RotationSchema, RotationService, Rotation_State as State } from "../../src/gen/leasehold/v1/rotation_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { testWorld, type TestWorld } from "../support/broker.ts";
import { type Receiver, SIGNING_SECRET, startReceiver } from "../support/receiver.ts";
import { FAST, putSubscription, webhookOf } from "../support/subscriptions.ts";
import { startTraceCollector, type TraceCollector } from "../support/trace-collector.ts";
import { until } from "../support/until.ts";

let collector: TraceCollector;
let world: TestWorld;
let to: Receiver;

beforeAll(async () => {
  [collector, world, to] = await Promise.all([startTraceCollector(), testWorld(), startReceiver()]);
  Object.assign(process.env, collector.env);
});
afterAll(async () => {
  await world?.close();
  await to?.stop();
  collector?.stop();
});

it("steps of rotations and deliveries have spans with their cause, and no secret", async () => {
  const broker = await world.start({ settings: FAST, env: process.env });
  const admin = broker.as("admin");
  await putSubscription(admin, webhookOf("spans", to));
  const path = "secrets/spans/rotated";
  const rotation = fromJson(RotationSchema, { path: `rotations/${path}`, generated: { fields: [{ name: "password", password: {} }] } });
  await admin.call(RotationService.method.putRotation, { rotation });
  const waits = (generation: bigint) =>
    until("it waits", async () => {
      const found = (await admin.call(RotationService.method.getRotation, { path: rotation.path })).rotation!;
      return found.state === State.WAITING && found.generation === generation;
    });
  await waits(1n);
  await admin.call(RotationService.method.rotateNow, { path: rotation.path });
  await waits(2n);
  const { data } = await admin.call(SecretService.method.getSecret, { path });
  const events = await world.store.query<{ n: number }>("select count(*)::int as n from change_log where path = $1", [path]);
  await until("they are delivered", () => to.requests.flatMap(({ delivery }) => delivery.events).length >= events[0]!.n);
  const [asked] = await world.store.query<{ trace: string }>("select trace_id as trace from rotation where path = $1", [path]);
  await broker.stop();
  const traces = collector.text();

  for (const name of ["rotation.create", "rotation.set", "rotation.test", "rotation.finish", "subscription.deliver"]) expect(traces).toContain(name);
  for (const attribute of ["leasehold.cause", "first", "requested", "leasehold.rotator", "subscriptions/spans", path]) expect(traces).toContain(attribute);
  expect(asked!.trace).toMatch(/^[0-9a-f]{32}$/);
  expect(traces).toContain(asked!.trace);
  const { kind } = data["password"]!;
  for (const never of [kind.value as string, SIGNING_SECRET]) expect(traces).not.toContain(never);
});
