import { createHash, randomBytes } from "node:crypto";
import type { Redis } from "ioredis";
import type { OpenOptions, TargetIdentity } from "../engine.ts";
import { misconfigured } from "../own-login.ts";
import { FENCE_SECONDS, fenceKey, getUser, oidOf } from "./users.ts";

const MAX_TRIES = 5;

/**
 * Which server this is. run_id changes at every restart, and a key could be changed or flushed by any lease that may write it, which would make
 * its own revocation stall. So the id is that of a user without rights that can't log in: users are not replicated, hence a replica made
 * primary, which lacks the logins, is another server, as finding 12 wants. Without an aclfile it goes at a restart together with the logins.
 */
export async function serverId(redis: Redis, instance: string): Promise<string> {
  const name = `leasehold_${instance}_server`;
  for (let i = 0; i < MAX_TRIES; i++) {
    /* oxlint-disable no-await-in-loop -- the next try depends on this one */
    await redis.watch(fenceKey(instance, "server"));
    const hash = (await getUser(redis, name))?.hashes[0];
    if (hash !== undefined) {
      await redis.unwatch();
      return oidOf(hash);
    }
    // The hash of nothing known: no password matches it.
    const marker = createHash("sha256").update(randomBytes(32)).digest("hex");
    const made = await redis
      .multi()
      .call("ACL", "SETUSER", name, "reset", "off", "resetkeys", "resetchannels", "-@all", `#${marker}`)
      .set(fenceKey(instance, "server"), "1", "EX", FENCE_SECONDS)
      .exec();
    throwFirst(made);
    await save(redis);
    /* oxlint-enable no-await-in-loop */
  }
  throw misconfigured("different_server");
}

/** Throws TARGET_MISCONFIGURED `different_server` when a login belongs elsewhere: nothing is to be touched, and absent means nothing. */
export async function requireServer(redis: Redis, instance: string, expected: string | undefined): Promise<string> {
  const found = await serverId(redis, instance);
  if (expected !== undefined && expected !== found) throw misconfigured("different_server");
  if (await isReplica(redis)) throw misconfigured("in_recovery");
  return found;
}

export async function identify(redis: Redis, options: OpenOptions): Promise<TargetIdentity> {
  const inRecovery = await isReplica(redis);
  const systemIdentifier = inRecovery ? "replica" : await serverId(redis, options.instance);
  const before = options.clock.now();
  const now = await timeOf(redis);
  const after = options.clock.now();
  const info = await redis.info("server");
  const serverVersion = /^(?:valkey|redis)_version:(\S+)/m.exec(info)?.[1] ?? "unknown";
  return { systemIdentifier, timeline: 1, inRecovery, serverVersion, clockSkewMs: Math.round(now - (before + after) / 2) };
}

/** The target's clock, Unix milliseconds. */
export async function timeOf(redis: Redis): Promise<number> {
  const [seconds, micros] = (await redis.call("TIME")) as [string, string];
  return Number(seconds) * 1000 + Number(micros) / 1000;
}

/** Writes the aclfile, so that what was done outlives a restart. Answers false where the server has none. Throws `acl_not_saved`. */
export async function save(redis: Redis): Promise<boolean> {
  try {
    await redis.call("ACL", "SAVE");
    return true;
  } catch (error) {
    const message = error instanceof Error ? error.message : "";
    if (/not configured to use an ACL file/i.test(message)) return false;
    if (/error trying to save|error saving/i.test(message)) throw misconfigured("acl_not_saved");
    throw error;
  }
}

/** Of an EXEC's answer; false when a watched key changed and nothing was done. */
export function throwFirst(results: [Error | null, unknown][] | null): boolean {
  for (const [error] of results ?? []) if (error !== null) throw error;
  return results !== null;
}

async function isReplica(redis: Redis): Promise<boolean> {
  return /^role:slave/m.test(await redis.info("replication"));
}
