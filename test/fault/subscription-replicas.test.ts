import { randomUUID } from "node:crypto";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLog } from "../../src/base/log.ts";
import { Pool } from "../../src/store/db.ts";
import { claimSubscription } from "../../src/store/subscriptions.ts";
import { testWorld, type TestBroker, type TestWorld } from "../support/broker.ts";
import { isStopped } from "../support/process.ts";
import { type Receiver, startReceiver } from "../support/receiver.ts";
import { FAST, putSubscription, webhookOf, write } from "../support/subscriptions.ts";
import { until } from "../support/until.ts";

let world: TestWorld;
let steady: TestBroker;
let to: Receiver;
beforeEach(async () => {
  [world, to] = await Promise.all([testWorld(), startReceiver()]);
});
afterEach(async () => {
  await world.close();
  await to.stop();
});

/** The revision of each event of each request, in the order of the requests. */
function sent(): { readonly revision: number; readonly fence: number; readonly accepted: boolean }[] {
  return to.requests.flatMap(({ delivery, headers, status }) =>
    (delivery.events ?? []).map((event) => ({
      revision: Number(event.revision),
      fence: Number(headers["leasehold-fence"]),
      accepted: status !== undefined && status < 300,
    })),
  );
}

/** Nothing is passed over: whatever is new follows what was accepted before it. What came before may come again. */
function expectNoGap(written: readonly string[]): void {
  expect(to.accepted()).toEqual(written);
  const firsts: number[] = [];
  for (const { revision, accepted } of sent()) if (accepted && !firsts.includes(revision)) firsts.push(revision);
  expect(firsts).toEqual([...firsts].sort((a, b) => a - b));
}

test("a replica killed in the middle of deliveries: another takes over; nothing is missing, nothing out of order", async () => {
  // The first to start has the claim; the one that stays takes over.
  const doomed = await world.spawn({ settings: FAST });
  await putSubscription(doomed.as("admin"), webhookOf("kill", to, { maxBatch: 3 }));
  const paths = Array.from({ length: 5 }, (_, i) => `secrets/kill/${i}`);
  const written = await write(doomed, paths);
  await until("the first events", () => to.accepted().length === 5);
  const [fence] = sent().map((each) => each.fence);
  steady = await world.start({ settings: FAST });
  // Held: the delivery is with the receiver, and the sender dies before it hears.
  const held = Promise.withResolvers<number>();
  to.answer = () => held.promise;
  const before = to.requests.length;
  written.push(...(await write(steady, paths)));
  await until("the delivery that is held", () => to.requests.length > before);
  doomed.program.signal("SIGKILL");
  await doomed.program.ended;
  to.answer = () => 204;
  held.resolve(204);
  written.push(...(await write(steady, paths)));
  await until("everything", () => to.accepted().length === written.length);
  expectNoGap(written);
  expect(sent().at(-1)!.fence).toBeGreaterThan(fence!);
});

test("a replica that was frozen and wakes up writes nothing any more: its claim is another's", async () => {
  const frozen = await world.spawn({ settings: FAST });
  await putSubscription(frozen.as("admin"), webhookOf("freeze", to, { maxBatch: 2 }));
  const paths = Array.from({ length: 4 }, (_, i) => `secrets/freeze/${i}`);
  const written = await write(frozen, paths);
  await until("the first events", () => to.accepted().length === 4);
  steady = await world.start({ settings: FAST });
  const held = Promise.withResolvers<number>();
  to.answer = () => held.promise;
  const before = to.requests.length;
  written.push(...(await write(steady, paths)));
  await until("the delivery that is held", () => to.requests.length > before);
  const late = to.requests.at(-1)!;
  frozen.program.signal("SIGSTOP");
  await until("it to stand still", () => isStopped(frozen.program.pid));
  to.answer = () => 204;
  written.push(...(await write(steady, paths)));
  await until("the other to take over", () => to.accepted().length === written.length);
  const cursor = async (): Promise<number> => Number((await world.store.query<{ revision: string }>("select revision from subscription"))[0]!.revision);
  const head = async (): Promise<number> =>
    Number((await world.store.query<{ revision: string }>("select max(revision) as revision from change_log"))[0]!.revision);
  await until("the cursor", async () => (await cursor()) === (await head()));
  held.resolve(204); // what the frozen one waits for is there when it wakes
  frozen.program.signal("SIGCONT");
  await until("its answer to be given", () => late.status === 204);
  written.push(...(await write(steady, paths)));
  await until("the rest", () => to.accepted().length === written.length);
  await until("the cursor to be at the head", async () => (await cursor()) === (await head()));
  expectNoGap(written);
  // After the takeover nothing came from the earlier claim.
  const taken = sent().findIndex(({ fence }) => fence > Number(late.headers["leasehold-fence"]));
  expect(
    sent()
      .slice(taken)
      .every(({ fence }) => fence > Number(late.headers["leasehold-fence"])),
  ).toBe(true);
});

test("three replicas: one of them delivers, one delivery at a time; and when claims end at any time, none is missing and the order stays", async () => {
  const settings = { subscriptions: { ...FAST.subscriptions, claim: "30s" } };
  const replicas = await Promise.all([1, 2, 3].map(() => world.start({ settings })));
  await putSubscription(replicas[0]!.as("admin"), webhookOf("load", to, { maxBatch: 4 }));
  const paths = Array.from({ length: 8 }, (_, i) => `secrets/load/${i}`);
  const written: string[] = [];
  for (let round = 0; round < 6; round++) written.push(...(await write(replicas[round % 3]!, paths)));
  await until("everything", () => to.accepted().length === written.length);
  expect(to.mostAtOnce).toBe(1);
  expect(new Set(sent().map(({ fence }) => fence)).size).toBe(1);
  expect(sent().length).toBe(written.length); // and none twice
  for (let round = 0; round < 12; round++) {
    written.push(...(await write(replicas[round % 3]!, paths)));
    // As if its holder had not been heard of.
    await world.store.query("update subscription set claim_until = leasehold_now()");
  }
  await until("everything", () => to.accepted().length === written.length);
  expectNoGap(written);
  await until("another to have taken over", async () => {
    await write(replicas[0]!, paths.slice(0, 1));
    return new Set(sent().map(({ fence }) => fence)).size > 1;
  });
});

test("of many who want a claim at the same moment one gets it, and again when it has ended by the database's clock", async () => {
  steady = await world.start({ settings: FAST });
  const record = await putSubscription(steady.as("admin"), { name: "claim", paths: ["secrets/claim/**"] });
  const pool = new Pool(
    { url: world.store.url, poolSize: 20, statementTimeoutMs: 10_000, connectTimeoutMs: 3000, requireSyncStandby: false },
    createLog("silent"),
  );
  try {
    for (const generation of [1, 2, 3]) {
      const taken = await Promise.all(Array.from({ length: 20 }, () => claimSubscription(pool, randomUUID(), 60_000, record.uid)));
      expect(taken.filter((each) => each !== undefined).map((each) => each.claim)).toEqual([generation]);
      await world.store.query("update subscription set claim_until = leasehold_now()");
    }
  } finally {
    await pool.close();
  }
});
