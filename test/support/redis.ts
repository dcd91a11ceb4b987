import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { Redis } from "ioredis";
import { inject } from "vitest";
import { freePort } from "../../src/dev/free-port.ts";
import { startLocalRedis } from "../../src/dev/local-redis.ts";
import { killServer } from "./process.ts";
import { tempFolder } from "./temp.ts";

export interface TestRedis {
  readonly url: string;
  /** Everything in it is gone. */
  wipe(): Promise<void>;
  /** Every key with its value, as text. */
  dump(): Promise<string>;
  /** `kill -9`; nothing survives. */
  kill(): Promise<void>;
  /** SIGSTOP: it answers nothing, and closes nothing, until `resume`. */
  freeze(): void;
  resume(): void;
  /** Killed if it runs, and empty again at the same URL. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** A Redis of one's own (20 ms), to be wiped, killed, restarted. Ends at the latest with the test's process. */
export async function freshRedis(): Promise<TestRedis> {
  const folder = join(tempFolder("redis"), "redis");
  const port = await freePort();
  const password = randomBytes(16).toString("hex");
  const start = (): ReturnType<typeof startLocalRedis> => startLocalRedis(folder, port, inject("redisServer"), password);
  let server = await start();
  const kill = (): Promise<void> => killServer(server);
  return {
    url: server.url,
    wipe: () => once(server.url, async (redis) => void (await redis.flushall())),
    dump: () => once(server.url, (redis) => dumpOf(redis, "*")),
    kill,
    freeze: () => void process.kill(server.pid, "SIGSTOP"),
    resume: () => void process.kill(server.pid, "SIGCONT"),
    async restart() {
      await kill();
      server = await start();
    },
    stop: () => server.stop(),
  };
}

export interface SharedRedis {
  readonly url: string;
  /** The caller's alone; every key it writes must begin with it. */
  readonly prefix: string;
  /** Every key under the prefix with its value, as text. */
  dump(): Promise<string>;
}

/** The run's one Redis, for tests that only need some Redis: not to be flushed, stopped or reconfigured. */
export function sharedRedis(): SharedRedis {
  const url = inject("redisUrl");
  const prefix = `test-${randomBytes(6).toString("hex")}:`;
  return { url, prefix, dump: () => once(url, (redis) => dumpOf(redis, `${prefix}*`)) };
}

async function once<T>(url: string, work: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null, maxRetriesPerRequest: 0 });
  redis.on("error", () => {});
  try {
    await redis.connect();
    return await work(redis);
  } finally {
    redis.disconnect();
  }
}

async function dumpOf(redis: Redis, pattern: string): Promise<string> {
  const keys = (await redis.keys(pattern)).toSorted();
  return (await Promise.all(keys.map(async (key) => `${key} ${JSON.stringify(await valueOf(redis, key))}`))).join("\n");
}

/** Throws on a type it does not know, so that a canary search never passes over what it cannot read. */
async function valueOf(redis: Redis, key: string): Promise<unknown> {
  const type = await redis.type(key);
  switch (type) {
    case "string":
      return redis.get(key);
    case "hash":
      return redis.hgetall(key);
    case "zset":
      return redis.zrange(key, "0", "-1", "WITHSCORES");
    case "set":
      return redis.smembers(key);
    case "list":
      return redis.lrange(key, 0, -1);
    case "stream":
      return redis.xrange(key, "-", "+");
    case "none":
      return undefined;
    default:
      throw new Error(`a Redis key of type ${type} cannot be dumped`);
  }
}
