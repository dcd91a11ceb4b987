import { Redis } from "ioredis";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Broker, hold, inState, leaseWorld, type LeaseWorld, targetCluster } from "../support/lease-world.ts";
import type { TestCluster } from "../support/postgres.ts";
import { freshRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

let world: LeaseWorld;
let hung: TestCluster;
let healthy: TestCluster;
let redis: TestRedis;
let broker: Broker;

beforeAll(async () => {
  [hung, healthy, redis] = await Promise.all([targetCluster(), targetCluster(), freshRedis()]);
  world = await leaseWorld({ redisUrl: redis.url, sweep: "60s" });
  broker = await world.start();
});
afterAll(async () => {
  await world?.close();
  await Promise.all([hung?.remove(), healthy?.remove(), redis?.stop()]);
});

test("lesson 6: a target that hangs with more due leases than it is given hands neither holds up another's nor keeps the schedule asking", async () => {
  const roles = [await world.addTarget(broker, "hung", hung), await world.addTarget(broker, "healthy", healthy)];
  const many = await Promise.all(Array.from({ length: 20 }, () => broker.as("app").issue(roles[0]!, 2000)));
  const other = await broker.as("app").issue(roles[1]!, 4000);
  const held = await hold(hung);
  const raw = new Redis(redis.url);
  try {
    await until("some to be under way", async () => (await Promise.all(many.map((one) => world.row(one.lease!.path)))).some((row) => row.state === "REVOKING"));
    await raw.config("RESETSTAT");
    await inState(world, other.lease!.path, "REVOKED");
    const [, calls] = /cmdstat_zrangebyscore:calls=(\d+)/.exec(await raw.info("commandstats")) ?? [];
    expect(Number(calls)).toBeLessThan(50);
  } finally {
    raw.disconnect();
    await held.release();
  }
  for (const one of many) await inState(world, one.lease!.path, "REVOKED");
});
