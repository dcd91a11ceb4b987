import { inspect } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { verify } from "../../examples/webhook-receiver.ts";
import { PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { SubscriptionStatus_State as State } from "../../src/gen/leasehold/v1/subscription_pb.ts";
import { SubscriptionService } from "../../src/gen/leasehold/v1/subscription_service_pb.ts";
import { APP, testWorld, type TestBroker, type TestWorld } from "../support/broker.ts";
import { type Receiver, SIGNING_SECRET, startReceiver } from "../support/receiver.ts";
import { acts, FAST, putSubscription, standing, subscription, text, webhookOf, write } from "../support/subscriptions.ts";
import { until } from "../support/until.ts";

const { method } = SubscriptionService;

describe("webhooks", () => {
  let world: TestWorld;
  let broker: TestBroker;
  const receivers: Receiver[] = [];
  beforeAll(async () => {
    world = await testWorld();
    broker = await world.start({ settings: FAST });
  });
  afterAll(async () => {
    await world.close();
    await Promise.all(receivers.map((receiver) => receiver.stop()));
  });

  const admin = () => broker.as("admin");
  const receiver = async (options?: { tls: boolean }): Promise<Receiver> => {
    const started = await startReceiver(options);
    receivers.push(started);
    return started;
  };
  const paths = (name: string, count: number): string[] => Array.from({ length: count }, (_, i) => `secrets/${name}/${i % 3}`);

  it("delivers what is committed, in order, signed, and moves the cursor; each delivery is on record", async () => {
    const to = await receiver();
    await putSubscription(admin(), webhookOf("plain", to));
    const written = await write(broker, paths("plain", 12));
    await until("all events", () => to.accepted().length === written.length);
    expect(to.accepted()).toEqual(written);
    expect(to.requests.every(({ verified }) => verified)).toBe(true);
    const [first] = to.requests;
    expect(first!.headers).toMatchObject({
      "content-type": "application/json",
      "leasehold-subscription": "subscriptions/plain",
      "leasehold-delivery": first!.delivery.id,
    });
    expect(first!.headers["idempotency-key"]).toBe(first!.delivery.id);
    expect(first!.delivery).toMatchObject({
      subscription: "subscriptions/plain",
      epoch: "1",
      events: [{ type: "EVENT_TYPE_SECRET_VERSION_CREATED", path: "secrets/plain/0", version: "1" }],
    });
    const { status } = await until("the cursor", async () => {
      const found = await subscription(admin(), "plain");
      return found.status!.delivered === 12n ? found : undefined;
    });
    expect(status).toMatchObject({ state: State.ACTIVE, lag: 0n, skipped: 0n, deadLetters: 0n, claimed: true, lastError: "" });
    const delivered = (await acts(world, "plain")).map((act) => Number(/^subscription\.deliver: (\d+) events to revision \d+$/.exec(act)?.[1]));
    expect(delivered.length).toBe(to.requests.length);
    expect(delivered.reduce((sum, n) => sum + n, 0)).toBe(12);
  });

  it("the example's check lets nothing through that was not signed so, now and as it is", async () => {
    const { headers, body } = receivers[0]!.requests[0]!;
    const header = String(headers["leasehold-signature"]);
    const time = Number(/^t=(\d+),/.exec(header)![1]);
    expect(verify(header, body, [SIGNING_SECRET], time)).toBe(true);
    expect(verify(header, body, ["another secret", SIGNING_SECRET], time)).toBe(true);
    expect(verify(header, body, ["another secret"], time)).toBe(false);
    expect(verify(header, Buffer.concat([body, Buffer.from(" ")]), [SIGNING_SECRET], time)).toBe(false);
    expect(verify(header, body, [SIGNING_SECRET], time + 301)).toBe(false);
    expect(verify(header.replace(`t=${time}`, `t=${time + 1}`), body, [SIGNING_SECRET], time)).toBe(false);
    expect(verify(header.replace(/v1=.*/, "v1="), body, [SIGNING_SECRET], time)).toBe(false);
    expect(verify("", body, [SIGNING_SECRET], time)).toBe(false);
  });

  it("a receiver that is away is tried until it is back; nothing is lost, nothing comes out of order", async () => {
    const to = await receiver();
    await putSubscription(admin(), webhookOf("outage", to));
    const written = await write(broker, paths("outage", 3));
    await until("the first events", () => to.accepted().length === 3);
    await to.stop();
    written.push(...(await write(broker, paths("outage", 9))));
    const failing = await standing(admin(), "outage", State.FAILING);
    expect(failing.status!.lastError).toBe("connection refused");
    expect(failing.status!.failingSinceTime).toBeDefined();
    to.answer = ({ delivery }) => (delivery.events!.length > 0 && to.requests.length % 2 === 0 ? 503 : 200);
    await to.start();
    await until("all events", () => to.accepted().length === written.length);
    expect(to.accepted()).toEqual(written);
    await standing(admin(), "outage", State.ACTIVE);
    // One record of the whole outage, not one of each attempt.
    expect((await acts(world, "outage")).filter((act) => act.startsWith("subscription.fail")).length).toBeLessThanOrEqual(3);
  });

  it("401, 404, 429 and a redirect say nothing of the events: they are kept; a redirect is not followed", async () => {
    const [to, elsewhere] = [await receiver(), await receiver()];
    await putSubscription(admin(), webhookOf("receiver", to));
    const statuses = [401, 404, 429, 307, 500];
    to.headers = { location: elsewhere.url, "retry-after": "0" };
    to.answer = () => statuses.shift() ?? 204;
    const written = await write(broker, paths("receiver", 1));
    await until("the event", () => to.accepted().length === 1);
    expect(to.accepted()).toEqual(written);
    expect(to.requests.map(({ status }) => status)).toEqual([401, 404, 429, 307, 500, 204]);
    expect(new Set(to.requests.map(({ delivery }) => delivery.id)).size).toBe(1);
    expect(elsewhere.requests).toEqual([]);
  });

  it("an event that is refused becomes a dead letter and holds up no other; replayed, it is delivered", async () => {
    const to = await receiver();
    let poisonous = true;
    to.answer = ({ delivery }) => (poisonous && delivery.events?.some((event) => event.path.endsWith("/poison")) === true ? 422 : 204);
    await putSubscription(admin(), webhookOf("poison", to));
    await admin().call(method.pauseSubscription, { path: "subscriptions/poison" });
    const written = await write(broker, [...paths("poison", 5), "secrets/poison/poison", ...paths("poison", 5)]);
    await admin().call(method.resumeSubscription, { path: "subscriptions/poison" });
    const healthy = written.filter((event) => !event.includes("/poison@"));
    await until("the healthy events", () => to.accepted().length === healthy.length);
    expect(to.accepted()).toEqual(healthy);
    const { deadLetters } = await until("the dead letter", async () => {
      const listed = await admin().call(method.listDeadLetters, { path: "subscriptions/poison" });
      return listed.deadLetters.length > 0 ? listed : undefined;
    });
    expect(deadLetters).toMatchObject([
      { problem: "HTTP 422", attempts: 2, replaying: false, delivery: { events: [{ path: "secrets/poison/poison", version: 1n }] } },
    ]);
    expect((await acts(world, "poison")).filter((act) => act.startsWith("subscription.dead_letter"))).toHaveLength(1);

    // Still refused: it stays what it is.
    await admin().call(method.replayDeadLetters, { path: "subscriptions/poison", ids: [deadLetters[0]!.id] });
    await until("the refusal", async () => (await admin().call(method.listDeadLetters, { path: "subscriptions/poison" })).deadLetters[0]?.attempts === 3);
    poisonous = false;
    expect((await admin().call(method.replayDeadLetters, { path: "subscriptions/poison" })).count).toBe(1n);
    await until("the list to be empty", async () => (await subscription(admin(), "poison")).status!.deadLetters === 0n);
    const last = to.requests.at(-1)!;
    expect([last.delivery.replay, last.delivery.events!.map((event) => event.path)]).toEqual([true, ["secrets/poison/poison"]]);
  });

  it("whoever refuses everything is stopped after so many dead letters, until somebody has looked at them", async () => {
    const to = await receiver();
    to.answer = () => 400;
    await putSubscription(admin(), webhookOf("full", to));
    const written = await write(broker, paths("full", 5));
    const full = await until("it to stand still", async () => {
      const found = await subscription(admin(), "full");
      return found.status!.lastError.includes("too many") ? found : undefined;
    });
    expect(full.status).toMatchObject({ state: State.FAILING, deadLetters: 3n, lastError: "HTTP 400, and there are too many dead letters" });
    to.answer = () => 204;
    await admin().call(method.discardDeadLetters, { path: "subscriptions/full", all: true });
    await until("the rest", () => to.accepted().length === 2);
    expect(to.accepted()).toEqual(written.slice(3));
  });

  it("dead letters can be thrown away", async () => {
    const to = await receiver();
    to.answer = () => 400;
    await putSubscription(admin(), webhookOf("discard", to));
    await write(broker, paths("discard", 2));
    await until("both", async () => (await subscription(admin(), "discard")).status!.deadLetters === 2n);
    expect((await admin().call(method.discardDeadLetters, { path: "subscriptions/discard", all: true })).count).toBe(2n);
    expect((await admin().call(method.listDeadLetters, { path: "subscriptions/discard" })).deadLetters).toEqual([]);
  });

  it("a paused one delivers nothing, and then what happened meanwhile", async () => {
    const to = await receiver();
    await putSubscription(admin(), webhookOf("paused", to));
    const written = await write(broker, paths("paused", 1));
    await until("the first", () => to.accepted().length === 1);
    await admin().call(method.pauseSubscription, { path: "subscriptions/paused" });
    written.push(...(await write(broker, paths("paused", 4))));
    // Another subscription has the same events: when it is through, this one would be.
    const beside = await receiver();
    await putSubscription(admin(), webhookOf("beside", beside, { paths: ["secrets/paused/**"], start: 2 }));
    await until("the other", () => beside.accepted().length > 0);
    expect(to.accepted()).toHaveLength(1);
    expect((await subscription(admin(), "paused")).status!.state).toBe(State.PAUSED);
    await admin().call(method.resumeSubscription, { path: "subscriptions/paused" });
    await until("the rest", () => to.accepted().length === written.length);
    expect(to.accepted()).toEqual(written);
  });

  it("events of one transaction come in one delivery, however small it should be", async () => {
    const to = await receiver();
    await putSubscription(admin(), webhookOf("whole", to, { maxBatch: 3 }));
    await admin().call(method.pauseSubscription, { path: "subscriptions/whole" });
    const all = await Promise.all(Array.from({ length: 60 }, (_, i) => write(broker, [`secrets/whole/${i}`]))); // gathered into few commits
    await admin().call(method.resumeSubscription, { path: "subscriptions/whole" });
    await until("all of them", () => to.accepted().length === all.length);
    const times = to.requests.map(({ delivery }) => new Set(delivery.events!.map((event) => event.time)));
    expect(times.reduce((sum, each) => sum + each.size, 0)).toBe(new Set(times.flatMap((each) => [...each])).size);
    expect(to.requests.length).toBeGreaterThan(1);
  });

  it("begins with a snapshot where it is asked to, and says when that is complete", async () => {
    const written = await write(broker, ["secrets/snap/a", "secrets/snap/b", "secrets/snap/c"]);
    const to = await receiver();
    await putSubscription(admin(), webhookOf("snap", to, { start: 2, maxBatch: 2 }));
    await until("the end of the snapshot", () => to.requests.some(({ delivery }) => delivery.snapshotEnd === true));
    written.push(...(await write(broker, ["secrets/snap/a"])));
    await until("all", () => to.accepted().length === written.length);
    expect(to.accepted()).toEqual(written);
    const ends = to.requests.findIndex(({ delivery }) => delivery.snapshotEnd === true);
    expect(to.requests[ends]!.delivery.events!.at(-1)).toMatchObject({ path: "secrets/snap/c", snapshot: true });
    expect(
      to.requests
        .slice(ends + 1)
        .flatMap(({ delivery }) => delivery.events ?? [])
        .every((event) => event.snapshot !== true),
    ).toBe(true);
  });

  it("what its owner may not see is skipped and counted: at once when his policy goes", async () => {
    const to = await receiver();
    const rules = [
      { paths: ["secrets/payments/**"], allow: ["watch"] },
      { paths: ["subscriptions/hook"], allow: ["write", "describe"] },
    ];
    const allow = () => admin().call(PolicyService.method.putPolicy, { policy: { name: "app", principals: [APP], rules } });
    await allow();
    const made = await putSubscription(broker.as("app"), webhookOf("hook", to, { paths: ["secrets/payments/**"] }));
    expect(made.owner).toBe(APP);
    await write(broker, ["secrets/payments/one"]);
    await until("what is allowed", () => to.accepted().length === 1);
    await admin().call(PolicyService.method.deletePolicy, { path: "policies/app" });
    await write(broker, ["secrets/payments/two", "secrets/payments/three"]);
    await allow();
    await write(broker, ["secrets/payments/four"]);
    await until("what is allowed again", () => to.accepted().length === 2);
    expect(to.accepted()).toEqual(["secrets/payments/one@1", "secrets/payments/four@1"]);
    await until("the count", async () => (await subscription(admin(), "hook")).status!.skipped === 2n);
    await admin().call(PolicyService.method.deletePolicy, { path: "policies/app" });
  });

  it("a new signing secret signs beside the old one, and has its own id", async () => {
    const to = await receiver();
    await putSubscription(admin(), webhookOf("rotated", to));
    const second = "another-secret-of-enough-bytes";
    const sink = { case: "webhook" as const, value: { url: to.url, caPem: to.ca, signingSecret: text(second) } };
    const written = await putSubscription(admin(), webhookOf("rotated", to, { sink }));
    expect(written.status!.signingKeyId).toBe("2");
    await write(broker, paths("rotated", 1));
    await until("it", () => to.accepted().length === 1);
    const [{ headers, body, verified }] = to.requests as [(typeof to.requests)[number]];
    const header = String(headers["leasehold-signature"]);
    expect([verified, verify(header, body, [second], Date.now() / 1000)]).toEqual([true, true]);
    expect(header).toMatch(/^t=\d+,kid=2,v1=[0-9a-f]{64},kid=1,v1=[0-9a-f]{64}$/);
  });

  it("sends secret headers, shows them to nobody, and asks for every secret again when the url changes", async () => {
    const to = await receiver();
    const value = {
      url: to.url,
      caPem: to.ca,
      signingSecret: text(SIGNING_SECRET),
      headers: { "X-Team": "payments" },
      secretHeaders: { Authorization: text("Bearer hush-hush") },
    };
    const shown = await putSubscription(admin(), webhookOf("headers", to, { sink: { case: "webhook", value } }));
    expect(inspect(shown, { depth: 10 })).not.toContain("hush");
    await write(broker, paths("headers", 1));
    await until("it", () => to.accepted().length === 1);
    expect(to.requests[0]!.headers).toMatchObject({ authorization: "Bearer hush-hush", "x-team": "payments" });
    const moved = { url: `${to.url}/elsewhere`, caPem: to.ca, secretHeaders: { Authorization: text("Bearer x") } };
    await expect(putSubscription(admin(), webhookOf("headers", to, { sink: { case: "webhook", value: moved } }))).rejects.toMatchObject({
      reason: "REQUEST_INVALID",
      violations: [{ field: "subscription.webhook.signing_secret", description: "is needed again when the url or ca_pem changes" }],
    });
  });

  it.each([
    ["http://10.0.0.1/hook", "may be reached without TLS on a loopback address alone"],
    ["http://example.test/hook", "may be reached without TLS on a loopback address alone"],
    ["https://169.254.169.254/latest", "is an address where no receiver can be"],
    ["https://[::ffff:169.254.169.254]/", "is an address where no receiver can be"],
    ["https://0x7f.1@evil.test/", "must not hold a user or password: use secret_headers"],
    ["ftp://example.test/", "must begin with https://"],
    ["https://example.test/#x", "must not have a fragment"],
  ])("refuses %s", async (url, description) => {
    const refused = putSubscription(admin(), webhookOf("bad", { url, ca: "" }));
    await expect(refused).rejects.toMatchObject({ reason: "REQUEST_INVALID", violations: [{ field: "subscription.webhook.url", description }] });
  });

  it("a receiver whose certificate nobody vouches for gets nothing", async () => {
    const to = await receiver();
    await putSubscription(admin(), webhookOf("untrusted", { url: to.url, ca: "" }));
    await write(broker, paths("untrusted", 1));
    const failing = await standing(admin(), "untrusted", State.FAILING);
    expect(failing.status!.lastError).toMatch(/^TLS: /);
    expect(to.requests).toEqual([]);
  });

  it("deletes with its dead letters, and knows it no more", async () => {
    await admin().call(method.deleteSubscription, { path: "subscriptions/discard" });
    await expect(subscription(admin(), "discard")).rejects.toMatchObject({ reason: "SUBSCRIPTION_NOT_FOUND" });
    const listed = await admin().call(method.listSubscriptions, { pageSize: 3 });
    expect(listed.subscriptions.map(({ name }) => name)).toEqual(["beside", "full", "headers"]);
    expect(listed.nextPageToken).not.toBe("");
  });
});
