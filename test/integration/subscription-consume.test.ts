import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CallError } from "../../src/client/errors.ts";
import { TlsMode } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { SubscriptionStatus_State as State } from "../../src/gen/leasehold/v1/subscription_pb.ts";
import { type ConsumeResponse, SubscriptionService } from "../../src/gen/leasehold/v1/subscription_service_pb.ts";
import { APP, testWorld, type TestBroker, type TestWorld } from "../support/broker.ts";
import type { LeafName } from "../support/pki.ts";
import { FAST, putSubscription, subscription, write } from "../support/subscriptions.ts";
import { until } from "../support/until.ts";

const { method } = SubscriptionService;

describe("subscriptions that are consumed", () => {
  let world: TestWorld;
  let brokers: [TestBroker, TestBroker];
  beforeAll(async () => {
    world = await testWorld();
    brokers = [await world.start({ settings: FAST }), await world.start({ settings: FAST })];
  });
  afterAll(() => world.close());

  const admin = (i = 0) => brokers[i]!.as("admin");
  const of = (name: string) => ({ name, paths: [`secrets/${name}/**`], maxBatch: 1 });

  function consuming(name: string, i = 0, maxUnacknowledged = 0, as: LeafName = "admin") {
    const abort = new AbortController();
    const messages: ConsumeResponse[] = [];
    const ended = (async () => {
      try {
        for await (const message of brokers[i]!.as(as).stream(method.consume, { path: `subscriptions/${name}`, maxUnacknowledged }, abort.signal))
          messages.push(message);
        return undefined;
      } catch (error) {
        if (error instanceof CallError) return error;
        throw error;
      }
    })();
    return {
      messages,
      ended,
      seen: () => messages.flatMap(({ delivery }) => delivery?.events.map((event) => `${event.path}@${event.version}`) ?? []),
      ack: (at: number, by = i) =>
        brokers[by]!.as(as).call(method.acknowledge, {
          path: `subscriptions/${name}`,
          ackToken: messages.filter(({ delivery }) => delivery !== undefined)[at]!.ackToken,
        }),
      stop: () => {
        abort.abort();
        return ended;
      },
    };
  }

  it("goes on behind what was acknowledged, on another replica too", async () => {
    await putSubscription(admin(), of("work"));
    const written = await write(
      brokers[0],
      Array.from({ length: 6 }, (_, i) => `secrets/work/${i}`),
    );
    const first = consuming("work");
    await until("all of them", () => first.seen().length === 6);
    expect(first.seen()).toEqual(written);
    await first.ack(2);
    await first.stop();
    // A consumer that goes and one that comes may overlap for a moment.
    const second = await until("the other replica to have it", async () => {
      const next = consuming("work", 1);
      await until(
        "an answer",
        () => next.messages.length > 1 || Promise.race([next.ended.then(() => true), new Promise<false>((resolve) => setImmediate(resolve, false))]),
      );
      return next.messages.length > 1 ? next : undefined;
    });
    await until("the rest", () => second.seen().length === 3);
    expect(second.seen()).toEqual(written.slice(3));
    await second.ack(2);
    await until("the cursor", async () => (await subscription(admin(), "work")).status!.lag === 0n);
    await second.stop();
  });

  it("has one consumer at a time", async () => {
    await putSubscription(admin(), of("one"));
    const first = consuming("one");
    await until("it is there", () => first.messages.length > 0);
    await write(brokers[0], ["secrets/one/a"]);
    await until("the event", () => first.seen().length === 1);
    expect((await consuming("one", 1).ended)?.reason).toBe("SUBSCRIPTION_BUSY");
    await first.stop();
  });

  it("holds back beyond the unacknowledged, and goes on when another replica is told", async () => {
    await putSubscription(admin(), of("window"));
    await write(
      brokers[0],
      Array.from({ length: 5 }, (_, i) => `secrets/window/${i}`),
    );
    const stream = consuming("window", 0, 2);
    await until("two", () => stream.seen().length === 2);
    await stream.ack(1, 1);
    await until("two more", () => stream.seen().length === 4);
    await stream.ack(3);
    await until("all", () => stream.seen().length === 5);
    await stream.stop();
  });

  it("a token of another subscription, or of before it was set anew, acknowledges nothing", async () => {
    await putSubscription(admin(), of("tokens"));
    await write(brokers[0], ["secrets/tokens/a"]);
    const stream = consuming("tokens");
    await until("it", () => stream.seen().length === 1);
    const { ackToken } = stream.messages.at(-1)!;
    const ack = (name: string, token: string) => admin().call(method.acknowledge, { path: `subscriptions/${name}`, ackToken: token });
    await expect(ack("window", ackToken)).rejects.toMatchObject({ reason: "ACK_TOKEN_INVALID" });
    await expect(ack("tokens", `${ackToken.slice(0, -2)}AA`)).rejects.toMatchObject({ reason: "ACK_TOKEN_INVALID" });
    await putSubscription(admin(), { ...of("tokens"), description: "anew" });
    expect((await stream.ended)?.reason).toBe("SUBSCRIPTION_BUSY");
    await expect(ack("tokens", ackToken)).rejects.toMatchObject({ reason: "ACK_TOKEN_INVALID" });
  });

  it("only its owner may consume; only who may watch all of it may make it in somebody else's name", async () => {
    await putSubscription(admin(), { ...of("owned"), owner: APP, paths: ["secrets/payments/**"] });
    expect((await subscription(admin(), "owned")).owner).toBe(APP);
    expect((await consuming("owned").ended)?.reason).toBe("PERMISSION_DENIED");
    expect((await consuming("owned", 0, 0, "app").ended)?.reason).toBe("PERMISSION_DENIED");
    const rules = [
      { paths: ["secrets/payments/**"], allow: ["watch"] },
      { paths: ["subscriptions/*"], allow: ["watch", "write"] },
    ];
    await admin().call(PolicyService.method.putPolicy, { policy: { name: "app", principals: [APP], rules } });
    const stream = consuming("owned", 0, 0, "app");
    await until("it is there", () => stream.messages.length > 0);
    await write(brokers[0], ["secrets/payments/a"]);
    await until("the event", () => stream.seen().length === 1);
    await stream.stop();
    const as = (owner: string, paths: string[]) => putSubscription(brokers[0].as("app"), { name: "other", owner, paths });
    await expect(as("spiffe://acme.test/admin", ["secrets/payments/**"])).rejects.toMatchObject({
      reason: "PERMISSION_DENIED",
      metadata: { capability: "operate" },
    });
    await expect(as("", ["secrets/other/**"])).rejects.toMatchObject({ reason: "PERMISSION_DENIED", metadata: { capability: "watch" } });
    await expect(as("", ["secrets/payments/**", "leases/**"])).rejects.toMatchObject({ reason: "REQUEST_INVALID" });
  });

  it("a policy that goes ends its stream", async () => {
    await putSubscription(brokers[0].as("app"), { name: "ends", paths: ["secrets/payments/**"] });
    const stream = consuming("ends", 0, 0, "app");
    await until("it is there", () => stream.messages.length > 0);
    const rules = [{ paths: ["secrets/payments/**"], allow: ["watch"] }];
    await admin().call(PolicyService.method.putPolicy, { policy: { name: "app", principals: [APP], rules } });
    await write(brokers[0], ["secrets/payments/b"]);
    expect((await stream.ended)?.reason).toBe("PERMISSION_DENIED");
    expect(stream.seen()).toEqual([]);
  });

  it("acknowledges a snapshot's pages and its end", async () => {
    const written = await write(brokers[0], ["secrets/pages/a", "secrets/pages/b", "secrets/pages/c"]);
    await putSubscription(admin(), { ...of("pages"), start: 2 });
    const stream = consuming("pages");
    await until("a part", () => stream.seen().length >= 2);
    await stream.ack(0);
    await stream.stop();
    const again = await until("a stream", async () => {
      const next = consuming("pages", 1);
      await until(
        "an answer",
        () => next.messages.length > 1 || Promise.race([next.ended.then(() => true), new Promise<false>((resolve) => setImmediate(resolve, false))]),
      );
      return next.messages.length > 1 ? next : undefined;
    });
    await until("the end", () => again.messages.some(({ delivery }) => delivery?.snapshotEnd === true));
    expect(again.seen()).toEqual(written.slice(1));
    const [change] = await write(brokers[0], ["secrets/pages/a"]);
    await until("the change", () => again.seen().at(-1) === change);
    await again.ack(again.messages.filter(({ delivery }) => delivery !== undefined).length - 1);
    const { status } = await subscription(admin(), "pages");
    expect(status).toMatchObject({ state: State.ACTIVE, snapshot: false, lag: 0n });
    await again.stop();
  });

  it("is not for a subscription with a sink, and knows neither what is not there nor what is paused", async () => {
    const sink = { case: "redisStream" as const, value: { host: "127.0.0.1", port: 1, tlsMode: TlsMode.DISABLE, key: "k" } };
    await putSubscription(admin(), { ...of("sunk"), sink });
    expect((await consuming("sunk").ended)?.reason).toBe("SUBSCRIPTION_SINK");
    expect((await consuming("nothing").ended)?.reason).toBe("SUBSCRIPTION_NOT_FOUND");
    await putSubscription(admin(), of("still"));
    await admin().call(method.pauseSubscription, { path: "subscriptions/still" });
    expect((await consuming("still").ended)?.reason).toBe("SUBSCRIPTION_PAUSED");
    await expect(admin().call(method.replayDeadLetters, { path: "subscriptions/still" })).rejects.toMatchObject({ reason: "SUBSCRIPTION_SINK" });
  });
});
