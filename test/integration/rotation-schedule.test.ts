import { fromJson } from "@bufbuild/protobuf";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { RotationSchema, RotationService } from "../../src/gen/leasehold/v1/rotation_service_pb.ts";
import { redisScope } from "../../src/schedule/redis.ts";
import { testWorld } from "../support/broker.ts";
import { freshRedis, type TestRedis } from "../support/redis.ts";
import { type RotationReplica, rotationWorld, type RotationWorld } from "../support/rotation-world.ts";
import { until } from "../support/until.ts";

/** So far apart that no sweep has done it. */
const NEVER = 600_000;
const SOON_MS = 700;

describe("rotations on the schedule", () => {
  let redis: TestRedis;
  let world: RotationWorld;
  let client: Redis;
  const key = `${redisScope("test")}:due-rotations`;

  beforeAll(async () => {
    redis = await freshRedis();
  });
  beforeEach(async () => {
    world = await rotationWorld();
    client = new Redis(redis.url);
    client.on("error", () => {});
  });
  afterEach(async () => {
    client.disconnect();
    await world.close();
    await redis.wipe();
  });
  afterAll(() => redis?.stop());

  /** Planned for so soon, as it would be by its interval some day. Answers when, as the ledger has it. */
  const planSoon = async (by: RotationReplica, path: string): Promise<number> => {
    const [row] = await world.database.query<{ uid: string; due_at: Date }>(
      "update rotation set planned_at = leasehold_now() + $2 * interval '1 ms', due_at = leasehold_now() + $2 * interval '1 ms' where path = $1 returning uid, due_at",
      [path, SOON_MS],
    );
    await by.clockwork.changed(row!.uid);
    return row!.due_at.getTime();
  };
  const uidOf = async (path: string): Promise<string> => (await world.rotation(path)).uid;
  const began = async (path: string): Promise<number | undefined> => {
    const [row] = await world.database.query<{ at: Date }>("select at from change_log where path = $1 and type = 50", [path]);
    return row?.at.getTime();
  };
  const account = async (by: RotationReplica): Promise<string> => {
    const path = await world.account(by, { schedule: { kind: "interval", everyMs: 3_600_000 } });
    await by.clockwork.sweep();
    await until("it is planned", async () => (await world.rotation(path)).problem === "" && (await client.zscore(key, await uidOf(path))) === null);
    return path;
  };

  it("one that is due is begun by the due index, when it is due and not before; one that Redis has lost waits for the sweep", async () => {
    const replica = await world.replica({ redisUrl: redis.url, sweepMs: NEVER });
    const [indexed, lost] = [await account(replica), await account(replica)];
    const [due, dueToo] = [await planSoon(replica, indexed), await planSoon(replica, lost)];
    expect(Number(await client.zscore(key, await uidOf(indexed)))).toBe(Math.ceil(due));
    await client.zrem(key, await uidOf(lost));
    expect(await until("it began", () => began(indexed))).toBeGreaterThanOrEqual(due);
    // Its time has come too, and the replica is awake; but what Redis does not say is the sweep's.
    const [clock] = await world.database.query<{ now: Date }>("select leasehold_now() as now");
    if (clock!.now.getTime() < dueToo)
      await until("its time", async () => (await world.database.query<{ now: Date }>("select leasehold_now() as now"))[0]!.now.getTime() > dueToo);
    expect(await began(lost)).toBeUndefined();
    await replica.clockwork.sweep();
    expect(await until("the sweep has begun it", () => began(lost))).toBeGreaterThanOrEqual(dueToo);
  });

  it("another replica's hint is as good, and both together begin it once", async () => {
    const planner = await world.replica({ redisUrl: redis.url, sweepMs: NEVER });
    const path = await account(planner);
    const due = await planSoon(planner, path);
    await planner.stop();
    const other = await world.replica({ redisUrl: redis.url, sweepMs: NEVER });
    const third = await world.replica({ redisUrl: redis.url, sweepMs: NEVER });
    for (const each of [other, third]) each.clockwork.start();
    expect(await until("it began", () => began(path))).toBeGreaterThanOrEqual(due);
    expect(await world.settle(other, path)).toMatchObject({ generation: 1 });
  });

  it.each([
    ["wiped", () => redis.wipe()],
    ["killed", () => redis.kill()],
  ])("with Redis %s the sweep begins it", async (_how, harm) => {
    await redis.restart();
    const replica = await world.replica({ redisUrl: redis.url, sweepMs: 100 });
    const path = await account(replica);
    await planSoon(replica, path);
    await harm();
    replica.clockwork.start();
    await until("it began", () => began(path));
    await world.settle(replica, path);
    expect((await world.outside(path)).password).toBe(await world.password(path));
    await redis.restart();
  });

  it("a whole broker has leases and rotations in one Redis, each in its own index", async () => {
    const whole = await testWorld();
    const broker = await whole.start({ settings: { redis: { url: redis.url } } });
    const rotation = fromJson(RotationSchema, {
      path: "rotations/secrets/r/due",
      policy: { interval: "60s" },
      generated: { fields: [{ name: "token", random: { size: 32 } }] },
    });
    await broker.as("admin").call(RotationService.method.putRotation, { rotation });
    const found = await until("the next one is planned", async () => {
      const { rotation: stored } = await broker.as("admin").call(RotationService.method.getRotation, { path: rotation.path });
      return stored!.lastRotationTime !== undefined && stored;
    });
    const planned = Number(found.nextRotationTime!.seconds) * 1000 + Math.ceil(found.nextRotationTime!.nanos / 1e6);
    await until("the index has it", async () => {
      const [index] = await client.keys("*:due-rotations");
      return index !== undefined && Number(await client.zscore(index, found.uid)) === planned;
    });
    await whole.close();
  });
});
