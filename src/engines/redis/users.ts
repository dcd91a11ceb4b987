import { createHash } from "node:crypto";
import type { Redis } from "ioredis";
import type { Sensitive } from "../../base/sensitive.ts";

/** A user as ACL GETUSER shows it. */
export interface AclUser {
  readonly enabled: boolean;
  /** SHA-256 of each password, hex. */
  readonly hashes: readonly string[];
}

/**
 * What Redis keeps of a password: its plain SHA-256. A password of 190 random bits can't be guessed from that, which is why no slow hash is
 * missing here; one that a person chose could be.
 */
export function aclHash(password: Sensitive): string {
  return createHash("sha256").update(password.reveal()).digest("hex");
}

/**
 * What tells a user from another made later under the same name, as an oid does on PostgreSQL: a digest of its verifier, so that nothing need be
 * kept beside the user and a lease that may write every key still can't change it.
 */
export function oidOf(hash: string): string {
  return createHash("sha256").update(`leasehold:${hash}`).digest("hex").slice(0, 32);
}

export async function getUser(redis: Redis, name: string): Promise<AclUser | undefined> {
  const reply = (await redis.call("ACL", "GETUSER", name)) as readonly unknown[] | null;
  if (reply === null) return undefined;
  const field = (wanted: string): readonly string[] => {
    const index = reply.findIndex((item, i) => i % 2 === 0 && item === wanted);
    return index < 0 ? [] : (reply[index + 1] as readonly string[]);
  };
  return { enabled: field("flags").includes("on"), hashes: field("passwords") };
}

/** Keys of the broker's own on the target. Their hash tag keeps an instance's in one slot. */
export function fenceKey(instance: string, name: string): string {
  return `leasehold:{${instance}}:fence:${name}`;
}

/** The newest candidate of a user's password; see static-logins.ts. */
export function rotationKey(instance: string, name: string): string {
  return `leasehold:{${instance}}:rotation:${name}`;
}

/** Longer than any creation can be under way. A creation that began before and ends after has seen the key change all the same. */
export const FENCE_SECONDS = 3600;
