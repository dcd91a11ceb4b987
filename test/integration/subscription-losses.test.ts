import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createLog } from "../../src/base/log.ts";
import { Gap_Reason, Subscription_OnLoss as OnLoss, SubscriptionStatus_State as State } from "../../src/gen/leasehold/v1/subscription_pb.ts";
import { SubscriptionService, ResumeSubscriptionRequest_From as From } from "../../src/gen/leasehold/v1/subscription_service_pb.ts";
import { type KeepChanges, pruneChanges } from "../../src/store/changes.ts";
import { Pool } from "../../src/store/db.ts";
import { testWorld, type TestBroker, type TestWorld } from "../support/broker.ts";
import { type Receiver, startReceiver } from "../support/receiver.ts";
import { acts, FAST, putSubscription, standing, subscription, webhookOf, write } from "../support/subscriptions.ts";
import { until } from "../support/until.ts";

const { method } = SubscriptionService;
const DAY = 86_400_000;

describe("what is lost to a subscription is told", () => {
  let world: TestWorld;
  let broker: TestBroker;
  let pool: Pool;
  const receivers: Receiver[] = [];
  beforeAll(async () => {
    world = await testWorld();
    broker = await world.start({ settings: FAST });
    pool = new Pool({ url: world.store.url, poolSize: 1, statementTimeoutMs: 5000, connectTimeoutMs: 3000, requireSyncStandby: false }, createLog("silent"));
  });
  afterAll(async () => {
    await pool.close();
    await world.close();
    await Promise.all(receivers.map((receiver) => receiver.stop()));
  });

  const admin = () => broker.as("admin");
  const receiver = async (): Promise<Receiver> => {
    const started = await startReceiver({ tls: false });
    receivers.push(started);
    return started;
  };
  const paths = (name: string, count: number): string[] => Array.from({ length: count }, (_, i) => `secrets/${name}/${i}`);
  const prune = (keep: Partial<KeepChanges>) => pruneChanges(pool, { keepMs: 0, keepForSubscriptionsMs: DAY, maxForSubscriptions: 1_000_000, ...keep }, 10_000);
  const floor = async (): Promise<number> => Number((await world.store.query<{ floor: string }>("select floor_revision as floor from store_state"))[0]!.floor);
  const pausedAt = async (name: string, to: Receiver, onLoss: OnLoss): Promise<number> => {
    await putSubscription(admin(), webhookOf(name, to, { onLoss }));
    await write(broker, [`secrets/${name}/first`]);
    await until("the first", () => to.accepted().length === 1);
    await until("the cursor", async () => (await subscription(admin(), name)).status!.delivered === 1n);
    await admin().call(method.pauseSubscription, { path: `subscriptions/${name}` });
    return Number((await subscription(admin(), name)).status!.revision);
  };

  it("the change log is kept for the one that is farthest behind, but not for ever", async () => {
    const to = await receiver();
    const cursor = await pausedAt("held", to, OnLoss.STOP);
    const written = await write(broker, paths("held", 5));
    await prune({});
    expect(await floor()).toBeLessThan(cursor);
    await admin().call(method.resumeSubscription, { path: "subscriptions/held" });
    await until("all of it", () => to.accepted().length === 6);
    expect(to.accepted().slice(1)).toEqual(written);
    await admin().call(method.deleteSubscription, { path: "subscriptions/held" });
  });

  it.each([
    ["age", { keepForSubscriptionsMs: 0 }],
    ["number", { maxForSubscriptions: 2 }],
  ])("beyond the bound by %s it is LOST and stands still; resumed with a snapshot, its receiver is told of the gap first", async (bound, keep) => {
    const name = `lost-${bound}`;
    const to = await receiver();
    const cursor = await pausedAt(name, to, OnLoss.STOP);
    await write(broker, paths(name, 5));
    await prune(keep);
    expect(await floor()).toBeGreaterThan(cursor);
    const lost = await standing(admin(), name, State.LOST);
    expect(lost.status!.loss).toMatchObject({ reason: Gap_Reason.COMPACTED, intact: false, fromRevision: BigInt(cursor), revision: BigInt(await floor()) });
    await expect(admin().call(method.resumeSubscription, { path: `subscriptions/${name}` })).rejects.toMatchObject({
      reason: "SUBSCRIPTION_LOST",
      metadata: { problem: "COMPACTED" },
    });
    expect((await acts(world, name)).at(-1)).toBe("subscription.lose: COMPACTED");
    expect(await world.store.query("select path from change_log where type = 61 and path = $1", [`subscriptions/${name}`])).toHaveLength(1);
    const before = to.requests.length;
    await admin().call(method.resumeSubscription, { path: `subscriptions/${name}`, from: From.SNAPSHOT });
    await until("the end of the snapshot", () => to.requests.some(({ delivery }) => delivery.snapshotEnd === true));
    const [gap, ...rest] = to.requests.slice(before).map(({ delivery }) => delivery);
    expect(gap).toMatchObject({ gap: { reason: "REASON_COMPACTED", fromRevision: String(cursor) } });
    expect(gap!.events).toBeUndefined();
    expect(rest.flatMap((delivery) => delivery.events ?? []).map((event) => event.path)).toEqual([...paths(name, 5), `secrets/${name}/first`]);
    await standing(admin(), name, State.ACTIVE);
    await admin().call(method.deleteSubscription, { path: `subscriptions/${name}` });
  });

  it("with on_loss CONTINUE or SNAPSHOT it tells its receiver and goes on by itself", async () => {
    const [on, snap] = [await receiver(), await receiver()];
    await pausedAt("continue", on, OnLoss.CONTINUE);
    await pausedAt("resnap", snap, OnLoss.SNAPSHOT);
    await write(broker, paths("continue", 3));
    await write(broker, paths("resnap", 3));
    await prune({ keepForSubscriptionsMs: 0 });
    const [newest] = await write(broker, ["secrets/continue/newest"]);
    await until(
      "both to be seen to",
      async () =>
        (await acts(world, "continue")).some((act) => act.startsWith("subscription.lose")) &&
        (await acts(world, "resnap")).some((act) => act.startsWith("subscription.lose")),
    );
    for (const name of ["continue", "resnap"]) await admin().call(method.resumeSubscription, { path: `subscriptions/${name}` });
    await until("the newest", () => on.accepted().includes(newest!));
    await until("the snapshot", () => snap.requests.some(({ delivery }) => delivery.snapshotEnd === true));
    for (const to of [on, snap]) expect(to.requests.filter(({ delivery }) => delivery.gap !== undefined)).toHaveLength(1);
    expect(snap.accepted()).toEqual(expect.arrayContaining(["secrets/resnap/0@1", "secrets/resnap/1@1", "secrets/resnap/2@1"]));
    for (const name of ["continue", "resnap"]) await admin().call(method.deleteSubscription, { path: `subscriptions/${name}` });
  });

  it("another history that has the cursor's change lost nothing, and says so; one that has not is a loss", async () => {
    const [same, other] = [await receiver(), await receiver()];
    await putSubscription(admin(), webhookOf("same", same));
    await write(broker, ["secrets/same/a"]);
    await until("it", async () => (await subscription(admin(), "same")).status!.delivered === 1n);
    const cursor = await pausedAt("other", other, OnLoss.STOP);
    await world.store.query("update change_log set at = at + interval '1 s' where revision = $1", [cursor]); // as if another change had taken its number
    await world.store.query("update store_state set epoch = epoch + 1");
    const lost = await standing(admin(), "other", State.LOST);
    expect(lost.status!.loss).toMatchObject({ reason: Gap_Reason.EPOCH_CHANGED, intact: false, fromEpoch: "1", epoch: "2", fromRevision: BigInt(cursor) });
    const told = await until("the notice", () => same.requests.find(({ delivery }) => delivery.gap !== undefined));
    expect(told.delivery).toMatchObject({ epoch: "2", gap: { reason: "REASON_EPOCH_CHANGED", intact: true, fromEpoch: "1" } });
    const [after] = await write(broker, ["secrets/same/b"]);
    await until("what comes after", () => same.accepted().includes(after!));
    expect(same.accepted()).toEqual(["secrets/same/a@1", after]);
  });

  it("a cursor that somebody moved is told too", async () => {
    const to = await receiver();
    await pausedAt("moved", to, OnLoss.STOP);
    await write(broker, paths("moved", 2));
    await admin().call(method.resumeSubscription, { path: "subscriptions/moved", from: From.NOW });
    await until("the notice", () => to.requests.at(-1)!.delivery.gap?.reason === "REASON_MOVED");
    const [newest] = await write(broker, ["secrets/moved/newest"]);
    await until("the next", () => to.accepted().includes(newest!));
    expect(to.accepted()).toEqual(["secrets/moved/first@1", newest]);
  });
});
