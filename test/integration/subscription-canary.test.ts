import { randomBytes } from "node:crypto";
import { inspect } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { CallError } from "../../src/client/errors.ts";
import { OperatorService, TlsMode } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { SubscriptionStatus_State as State } from "../../src/gen/leasehold/v1/subscription_pb.ts";
import { SubscriptionService } from "../../src/gen/leasehold/v1/subscription_service_pb.ts";
import { OperationService } from "../../src/gen/leasehold/v1/operation_service_pb.ts";
import { type SpawnedBroker, testWorld, type TestWorld } from "../support/broker.ts";
import { type Receiver, startReceiver } from "../support/receiver.ts";
import { freshRedis, type TestRedis } from "../support/redis.ts";
import { FAST, putSubscription, standing, text, write } from "../support/subscriptions.ts";
import { until } from "../support/until.ts";

/** Bytes that nothing but a leak would contain. */
const CANARY = `canary-${randomBytes(12).toString("hex")}`;
const FORMS = [CANARY, Buffer.from(CANARY).toString("hex"), Buffer.from(CANARY).toString("base64").replace(/=+$/, "")];

let world: TestWorld;
let broker: SpawnedBroker;
let to: Receiver;
let redis: TestRedis;
beforeAll(async () => {
  [world, to, redis] = await Promise.all([testWorld(), startReceiver(), freshRedis()]);
  broker = await world.spawn({ settings: { ...FAST, log: { level: "trace" }, redis: { url: redis.url } } });
});
afterAll(async () => {
  await world.close();
  await Promise.all([to.stop(), redis.stop()]);
});

test("a sink's secrets are in no row, log, answer, error or Redis, also when it fails, and open after a rotation of the keyring", async () => {
  const admin = broker.as("admin");
  const value = { url: to.url, caPem: to.ca, signingSecret: text(CANARY), secretHeaders: { authorization: text(`Bearer ${CANARY}`) } };
  const shown: unknown[] = [await putSubscription(admin, { name: "hook", paths: ["secrets/c/**"], sink: { case: "webhook", value } })];
  const port = Number(new URL(redis.url).port);
  const stream = { host: "127.0.0.1", port, tlsMode: TlsMode.DISABLE, key: "k", password: text(CANARY) };
  shown.push(await putSubscription(admin, { name: "stream", paths: ["secrets/c/**"], sink: { case: "redisStream", value: stream } }));
  const dry = { name: "dry", paths: ["secrets/c/**"], sink: { case: "webhook" as const, value } };
  shown.push(await admin.call(SubscriptionService.method.putSubscription, { subscription: dry, dryRun: true }));
  const refused = { ...value, url: "http://example.test/", secretHeaders: { "bad name": text(CANARY) } };
  await putSubscription(admin, { name: "bad", paths: ["secrets/c/**"], sink: { case: "webhook", value: refused } }).catch((error: CallError) =>
    shown.push(error.message, error.metadata, error.reason, (error as { violations?: unknown }).violations),
  );
  to.answer = () => (to.requests.length < 3 ? 500 : 204);
  await write(broker, ["secrets/c/a"]);
  await until("the delivery", () => to.accepted().length === 1);
  expect(to.requests[0]!.headers["authorization"]).toBe(`Bearer ${CANARY}`);
  await standing(admin, "stream", State.FAILING);

  await admin.call(OperatorService.method.rotateKeyring, {});
  const { operation } = await admin.call(OperatorService.method.rewrapKeyring, {});
  await admin.call(OperationService.method.waitOperation, { path: operation!.path });
  const keys = await admin.call(OperatorService.method.listKeys, {});
  expect(keys.keys.map(({ keyId, uses }) => [keyId, uses])).toEqual([
    [1, 0n],
    [2, 3n], // two sinks and a secret
  ]);
  await admin.call(SubscriptionService.method.pauseSubscription, { path: "subscriptions/hook" });
  await admin.call(SubscriptionService.method.resumeSubscription, { path: "subscriptions/hook" });
  await write(broker, ["secrets/c/a"]);
  await until("the next", () => to.accepted().length === 2);
  expect(to.requests.at(-1)!.headers["authorization"]).toBe(`Bearer ${CANARY}`);
  shown.push(await admin.call(SubscriptionService.method.listSubscriptions, {}));

  broker.program.signal("SIGTERM");
  await broker.program.ended;
  const output = broker.program.stdout() + broker.program.stderr();
  expect(output).toContain("a subscription's receiver does not take events");
  const tables = await world.store.query<{ name: string }>("select tablename as name from pg_tables where schemaname = 'public'");
  for (const form of FORMS) {
    expect(inspect(shown, { depth: 20, maxStringLength: null })).not.toContain(form);
    expect(output).not.toContain(form);
    expect(await redis.dump()).not.toContain(form);
    for (const { name } of tables) {
      const rows = await world.store.query(`select from "${name}" t where position($1 in t::text) > 0`, [form]);
      expect([name, rows.length]).toEqual([name, 0]);
    }
  }
});
