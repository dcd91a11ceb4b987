import { afterAll, beforeAll, expect, test } from "vitest";
import { OperatorService } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { type Broker, inState, leaseWorld, type LeaseWorld, targetCluster } from "../support/lease-world.ts";
import { halfOpen, type HalfOpen } from "../support/half-open.ts";
import type { TestCluster } from "../support/postgres.ts";
import { freshRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

// A Redis that answers nothing and closes nothing: cut off by the network, or frozen. (Killed and wiped: lease-outages.test.ts.)

const SWEEP_MS = 1000;
/** The sweep's interval has this jitter. */
const SWEEP_JITTER = 1.1;
/**
 * The bound is expiry and the sweep's interval. On top of it, for a machine that others use too: one claim, the drop, and the commit of the end, which on a loaded machine have taken seconds. What is told
 * apart is a sweep from a claim that ends by itself after a minute.
 */
const SLACK_MS = 8000;
const EXPIRED = 22;

let target: TestCluster;
let redis: TestRedis;
let way: HalfOpen;
let world: LeaseWorld;
let replicas: Broker[];
let role: string;

beforeAll(async () => {
  [target, redis] = await Promise.all([targetCluster(), freshRedis()]);
  const url = new URL(redis.url);
  way = await halfOpen(Number(url.port));
  url.port = String(way.port);
  world = await leaseWorld({ redisUrl: url.href, sweep: `${SWEEP_MS}ms` });
  replicas = [await world.start(), await world.start()];
  role = await world.addTarget(replicas[0]!, "main", target);
});
afterAll(async () => {
  await world?.close();
  await way?.close();
  redis?.resume();
  await Promise.all([target?.remove(), redis?.stop()]);
});

const status = async (broker: Broker): Promise<string> => (await broker.as("admin").call(OperatorService.method.getServerInfo, {})).redis;

/** Calls that go on issuing short leases until told to end; answers all their leases. */
function load(): () => Promise<string[]> {
  let over = false;
  const issued: string[] = [];
  const callers = replicas.map(async (broker) => {
    while (!over) issued.push((await broker.as("app").issue(role, 1000)).lease!.path);
  });
  return async () => {
    over = true;
    await Promise.all(callers);
    return issued;
  };
}

async function endedOnce(paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    await inState(world, path, "REVOKED");
    expect((await world.events(path)).filter((type) => type === EXPIRED)).toEqual([EXPIRED]);
  }
}

/** How late the leases of these paths were ended, at most. */
async function latestMs(paths: readonly string[]): Promise<number> {
  const [row] = await world.store.query<{ ms: number }>(
    "select max(extract(epoch from ended_at - expire_at) * 1000)::float8 as ms from lease where id::text = any ($1)",
    [paths.map((path) => path.slice("leases/".length))],
  );
  return row!.ms;
}

for (const [name, harm, heal] of [
  ["partitioned", () => way.cut(), () => way.mend()],
  ["frozen", () => redis.freeze(), () => redis.resume()],
] as const) {
  test(
    `Redis ${name} under load: no call fails, every lease ends within its expiry and the sweep's interval, once; and Redis is used again after`,
    { timeout: 90_000 },
    async () => {
      const end = load();
      const held = world.store.query<{ n: number }>("select count(*)::int as n from lease");
      const before = (await held)[0]!.n;
      const many = async (more: number): Promise<boolean> =>
        (await world.store.query<{ n: number }>("select count(*)::int as n from lease"))[0]!.n >= before + more;
      await until("some leases", () => many(10));
      harm();
      await until("more leases, and ends, without Redis", () => many(60));
      const issued = await end();
      await endedOnce(issued);
      expect(await latestMs(issued)).toBeLessThan(SWEEP_MS * SWEEP_JITTER + SLACK_MS);
      heal();
      await until("Redis to be used again", async () => (await Promise.all(replicas.map(status))).every((one) => one === "ok"));
      const next = await replicas[0]!.as("app").issue(role, 1000);
      await until(
        "a hint to be there, or to have been claimed",
        async () => (await redis.dump()).includes(":due") || (await world.row(next.lease!.path)).state === "REVOKED",
      );
      await endedOnce([next.lease!.path]);
    },
  );
}
