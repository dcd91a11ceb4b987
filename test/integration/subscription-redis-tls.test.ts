import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TlsMode } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { SubscriptionStatus_State as State } from "../../src/gen/leasehold/v1/subscription_pb.ts";
import { testWorld, type TestBroker, type TestWorld } from "../support/broker.ts";
import { authority } from "../support/pki.ts";
import { freshRedis, type TestRedis } from "../support/redis.ts";
import { withTls } from "../support/redis-tls.ts";
import { FAST, putSubscription, standing, subscription, text, write } from "../support/subscriptions.ts";
import { until } from "../support/until.ts";

describe("a Redis stream over TLS", () => {
  let world: TestWorld;
  let broker: TestBroker;
  let redis: TestRedis;
  let tls: Awaited<ReturnType<typeof withTls>>;
  beforeAll(async () => {
    [world, redis] = await Promise.all([testWorld(), freshRedis()]);
    tls = await withTls(redis);
    broker = await world.start({ settings: FAST });
  });
  afterAll(async () => {
    await world.close();
    await redis.stop();
  });

  const admin = () => broker.as("admin");
  const password = (): string => new URL(redis.url).password;
  const of = (name: string, more: object = {}) => ({
    name,
    paths: [`secrets/${name}/**`],
    sink: {
      case: "redisStream" as const,
      value: { host: "localhost", port: tls.port, tlsMode: TlsMode.VERIFY_FULL, caPem: tls.caPem, key: name, password: text(password()), ...more },
    },
  });
  const paths = async (key: string): Promise<string[]> => {
    const client = new Redis(redis.url);
    try {
      return (await client.xrange(key, "-", "+")).map(([, fields]) => fields[fields.indexOf("path") + 1]!);
    } finally {
      client.disconnect();
    }
  };

  it("delivers to the server that the CA vouches for, by name and by address; its password is shown to nobody", async () => {
    await putSubscription(admin(), of("named"));
    await putSubscription(admin(), of("addressed", { host: "127.0.0.1" }));
    await write(broker, ["secrets/named/a", "secrets/addressed/a"]);
    await until("both", async () => (await paths("named")).length === 1 && (await paths("addressed")).length === 1);
    const stored = await subscription(admin(), "named");
    expect(stored.sink).toMatchObject({ case: "redisStream", value: { tlsMode: TlsMode.VERIFY_FULL, caPem: tls.caPem } });
    expect(JSON.stringify(stored, (_key, value: unknown) => (typeof value === "bigint" ? String(value) : value))).not.toContain(password());
    const rows = await world.store.query<{ row: string }>("select to_jsonb(s)::text as row from subscription s");
    expect(rows.map(({ row }) => row).join()).not.toContain(password());
  });

  it("sends nothing, and no password, to a server that another CA vouches for, or none; goes on when it is the right one again", async () => {
    await putSubscription(admin(), of("foreign", { caPem: (await authority("beta")).certificatePem }));
    await putSubscription(admin(), of("unknown", { caPem: "" }));
    await write(broker, ["secrets/foreign/a", "secrets/unknown/a"]);
    for (const name of ["foreign", "unknown"]) expect((await standing(admin(), name, State.FAILING)).status!.lastError).toMatch(/TLS|certificate/i);
    expect(await paths("foreign")).toEqual([]);
    // The password goes where the connection goes: for another CA it is asked for again.
    await expect(putSubscription(admin(), of("foreign", { password: undefined }))).rejects.toMatchObject({ reason: "REQUEST_INVALID" });
    await putSubscription(admin(), of("foreign"));
    await until("the event", async () => (await paths("foreign")).length === 1);
    await standing(admin(), "foreign", State.ACTIVE);
  });

  it("a certificate that has ended, or names another host, is refused; plain Redis behind the port is too", async () => {
    await putSubscription(admin(), of("ended"));
    await tls.show("serverExpired");
    await write(broker, ["secrets/ended/a"]);
    expect((await standing(admin(), "ended", State.FAILING)).status!.lastError).toMatch(/TLS|certificate/i);
    await tls.show("app"); // no host name in it
    await write(broker, ["secrets/ended/b"]);
    const so = (await subscription(admin(), "ended")).status!.attempts;
    await until("another try", async () => (await subscription(admin(), "ended")).status!.attempts > so + 1);
    expect(await paths("ended")).toEqual([]);
    await tls.show("server");
    await until("both events", async () => (await paths("ended")).length === 2);

    await putSubscription(admin(), of("plain", { port: Number(new URL(redis.url).port) }));
    await write(broker, ["secrets/plain/a"]);
    await standing(admin(), "plain", State.FAILING);
    expect(await paths("plain")).toEqual([]);
  });
});
