import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { inject } from "vitest";
import { freePort } from "../../src/dev/free-port.ts";
import { startLocalRedis } from "../../src/dev/local-redis.ts";

export interface TestRedis {
  readonly url: string;
  /** Everything in it is gone. */
  wipe(): Promise<void>;
  /** Every key with its value, as text. */
  dump(): Promise<string>;
  stop(): Promise<void>;
}

/** A Redis of one's own. */
export async function freshRedis(): Promise<TestRedis> {
  const folder = mkdtempSync(join(tmpdir(), "leasehold-redis-"));
  const server = await startLocalRedis(folder, await freePort(), inject("redisServer"));
  return {
    url: server.url,
    wipe: () => once(server.url, async (redis) => void (await redis.flushall())),
    dump: () => once(server.url, dumpAll),
    stop: async () => {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function once<T>(url: string, work: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url);
  try {
    return await work(redis);
  } finally {
    redis.disconnect();
  }
}

async function dumpAll(redis: Redis): Promise<string> {
  const lines: string[] = [];
  for (const key of await redis.keys("*")) {
    const type = await redis.type(key);
    const value =
      type === "string" ? await redis.get(key) : type === "hash" ? await redis.hgetall(key) : type === "zset" ? await redis.zrange(key, 0, -1, "WITHSCORES") : type === "set" ? await redis.smembers(key) : await redis.lrange(key, 0, -1);
    lines.push(`${key} ${JSON.stringify(value)}`);
  }
  return lines.join("\n");
}
