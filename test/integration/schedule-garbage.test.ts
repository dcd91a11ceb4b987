import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { redisScope } from "../../src/schedule/redis.ts";
import { actorOf, leaseWorld, type LeaseTarget, type LeaseWorld, type Replica, ROLE, startLeaseTarget } from "../support/leases.ts";
import { freshRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

/** The sweep alone is too rare to have done it. */
const NEVER = 600_000;

let target: LeaseTarget;
let world: LeaseWorld;
let redis: TestRedis;
let raw: Redis;
let key: string;
let replica: Replica;

beforeAll(async () => {
  [target, redis] = await Promise.all([startLeaseTarget(), freshRedis()]);
  world = await leaseWorld(target);
  raw = new Redis(redis.url);
  key = `${redisScope(world.database.database)}:due`;
});
beforeEach(async () => {
  await redis.wipe();
  replica = await world.replica({ redisUrl: redis.url, sweepMs: NEVER });
  await until("Redis answers", () => replica.redis?.status === "ready");
  replica.clockwork.start();
});
afterEach(() => replica.clockwork.stop());
afterAll(async () => {
  raw?.disconnect();
  await world?.close();
  await Promise.all([target?.cluster.stop(), redis?.stop()]);
});

async function endsInTime(): Promise<void> {
  const issued = await replica.issuer.issue({ path: ROLE, ttlMs: 1000, actor: actorOf(), request: undefined });
  await until("the lease has ended", async () => (await replica.lease(issued.lease.id)).state === "REVOKED");
  expect(await world.events(issued.lease.id)).toEqual([20, 22]);
}

test("a member of the due index that is no lease's id holds up no lease, and is thrown away", async () => {
  const rubbish = Array.from({ length: 150 }, (_, i) => ["0", `rubbish ${i}`]).flat();
  await raw.zadd(key, "-inf", "not-a-uuid", "0", "'; drop table lease; --", ...rubbish);
  await endsInTime();
  await until("the rubbish is gone", async () => (await raw.zrange(key, "0", "-1")).every((member) => /^[0-9a-f-]{36}$/.test(member)));
});

test("a member of the due index that is never due does not keep the schedule busy, nor from its work", async () => {
  await raw.zadd(key, "inf", "never");
  await endsInTime();
  await raw.config("RESETSTAT");
  await endsInTime();
  const [, calls] = /cmdstat_zrange:calls=(\d+)/.exec(await raw.info("commandstats")) ?? [];
  expect(Number(calls ?? 0)).toBeLessThan(100);
});

test("a due index that is something else holds up no lease", async () => {
  await raw.set(key, "a string");
  await endsInTime();
  await raw.del(key);
  await endsInTime();
});
