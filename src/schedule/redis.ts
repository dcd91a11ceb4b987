import { Redis } from "ioredis";
import type { Log } from "../base/log.ts";

export type RedisStatus = "ok" | "absent" | "unreachable";

/**
 * Fail-fast: ioredis's defaults hang in an outage (a get was still pending after 15 s). With these a command fails within 1 ms when Redis is down, 301 ms when it is frozen,
 * and works again 190 ms after it is back. @param url `redis://`, `rediss://`, or the path of a socket.
 */
export function createRedis(url: string, log: Log): Redis {
  const redis = new Redis(url, {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    commandTimeout: 300,
    autoResendUnfulfilledCommands: false,
    connectTimeout: 2000,
    retryStrategy: (attempt) => Math.min(100 * attempt, 2000),
  });
  let down = false;
  redis.on("ready", () => {
    if (down) log.info("Redis is back");
    down = false;
  });
  redis.on("error", (error: NodeJS.ErrnoException) => {
    if (!down) log.warn({ code: error.code ?? error.name }, "Redis can't be reached: the sweep does the work, less promptly");
    down = true;
  });
  return redis;
}

/** Prefix of this installation's keys and channels: two of them may share a Redis. */
export function redisScope(instance: string, prefix = "leasehold:"): string {
  return `${prefix}{${instance}.1}`;
}

export function statusOf(redis: Redis | undefined): RedisStatus {
  if (redis === undefined) return "absent";
  return redis.status === "ready" ? "ok" : "unreachable";
}
