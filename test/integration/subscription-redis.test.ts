import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TlsMode } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { SubscriptionStatus_State as State } from "../../src/gen/leasehold/v1/subscription_pb.ts";
import { testWorld, type TestBroker, type TestWorld } from "../support/broker.ts";
import { freshRedis, type TestRedis } from "../support/redis.ts";
import { FAST, putSubscription, standing, subscription, text, write } from "../support/subscriptions.ts";
import { until } from "../support/until.ts";

describe("a Redis stream", () => {
  let world: TestWorld;
  let broker: TestBroker;
  let redis: TestRedis;
  beforeAll(async () => {
    [world, redis] = await Promise.all([testWorld(), freshRedis()]);
    broker = await world.start({ settings: FAST });
  });
  afterAll(async () => {
    await world.close();
    await redis.stop();
  });

  const admin = () => broker.as("admin");
  const of = (name: string, key: string, password?: string, port?: number) => {
    const url = new URL(redis.url);
    const value = { host: "localhost", port: port ?? Number(url.port), tlsMode: TlsMode.DISABLE, key, password: text(password ?? url.password) };
    return { name, paths: [`secrets/${name}/**`], sink: { case: "redisStream" as const, value } };
  };
  async function entries(key: string): Promise<Record<string, string>[]> {
    const client = new Redis(redis.url, { lazyConnect: true, retryStrategy: () => null, maxRetriesPerRequest: 0 });
    client.on("error", () => {});
    try {
      await client.connect();
      const found = await client.xrange(key, "-", "+");
      return found.map(([, fields]) => Object.fromEntries(Array.from({ length: fields.length / 2 }, (_, i) => [fields[2 * i]!, fields[2 * i + 1]!])));
    } finally {
      client.disconnect();
    }
  }
  const seen = async (key: string): Promise<string[]> =>
    (await entries(key)).map(({ event }) => JSON.parse(event!) as { path: string; version: string }).map(({ path, version }) => `${path}@${version}`);

  it("has the events in order, each with its id, type and path", async () => {
    await putSubscription(admin(), of("plain", "plain"));
    const written = await write(broker, ["secrets/plain/a", "secrets/plain/b", "secrets/plain/a"]);
    await until("all of them", async () => (await seen("plain")).length === 3);
    expect(await seen("plain")).toEqual(written);
    const [first] = await entries("plain");
    expect(first).toMatchObject({ subscription: "subscriptions/plain", type: "EVENT_TYPE_SECRET_VERSION_CREATED", path: "secrets/plain/a" });
    expect(first!["id"]).toMatch(/^1\.\d+$/);
  });

  it("goes on when Redis is back", async () => {
    await putSubscription(admin(), of("outage", "outage"));
    await write(broker, ["secrets/outage/a"]);
    await until("the first", async () => (await seen("outage")).length === 1);
    await until("the cursor", async () => (await subscription(admin(), "outage")).status!.delivered === 1n);
    await redis.kill();
    const meanwhile = await write(broker, ["secrets/outage/b", "secrets/outage/c"]);
    const failing = await standing(admin(), "outage", State.FAILING);
    expect(["connection refused", "the connection broke"]).toContain(failing.status!.lastError);
    await redis.restart();
    await until("the rest", async () => (await seen("outage")).length === 2);
    expect(await seen("outage")).toEqual(meanwhile); // the first went with Redis, which keeps nothing here
    await standing(admin(), "outage", State.ACTIVE);
  });

  it("what Redis refuses is of its settings, not of the events: it is tried on, and shown by its code alone", async () => {
    await putSubscription(admin(), of("wrong", "wrong", "not the password"));
    await write(broker, ["secrets/wrong/a"]);
    expect((await standing(admin(), "wrong", State.FAILING)).status!.lastError).toBe("Redis: WRONGPASS");
    await putSubscription(admin(), of("wrong", "wrong"));
    await until("the event", async () => (await seen("wrong")).length === 1);
    await standing(admin(), "wrong", State.ACTIVE);
  });

  it("needs no more of Redis than it says", async () => {
    const client = new Redis(redis.url);
    await client.call("ACL", "SETUSER", "small", "on", ">small-password", "~small", "resetchannels", "-@all", "+xadd", "+multi", "+exec", "+ping");
    client.disconnect();
    const given = of("small", "small", "small-password");
    await putSubscription(admin(), { ...given, sink: { case: "redisStream", value: { ...given.sink.value, username: "small" } } });
    const written = await write(broker, ["secrets/small/a", "secrets/small/b"]);
    await until("both", async () => (await seen("small")).length === 2);
    expect(await seen("small")).toEqual(written);
  });

  it("asks for the password again when it would go elsewhere, and for TLS elsewhere than on this machine", async () => {
    const { sink } = of("plain", "plain", undefined, 1);
    const { password: _, ...value } = sink.value;
    await expect(putSubscription(admin(), { ...of("plain", "plain"), sink: { case: "redisStream", value } })).rejects.toMatchObject({
      violations: [{ field: "subscription.redis_stream.password", description: "is needed again when the connection changes" }],
    });
    const far = { ...value, host: "redis.example.test" };
    await expect(putSubscription(admin(), { ...of("far", "far"), sink: { case: "redisStream", value: far } })).rejects.toMatchObject({
      violations: [{ field: "subscription.redis_stream.host", description: "may be reached without TLS on a loopback address alone" }],
    });
  });
});
