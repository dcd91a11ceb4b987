import { LeaseholdError } from "../base/errors.ts";
import type { Actor } from "../model/audit.ts";
import type { Command, Committer } from "../store/command.ts";
import { refusal } from "../store/group-committer.ts";
import type { Keyring } from "./keyring.ts";

const MAX_TRIES = 5;

/** Adds a seed to the keyring, as a change: other replicas learn of it by the feed, and by meeting it. Answers its id. */
export async function rotateKeyring(
  keyring: Keyring,
  committer: Committer,
  actor: Actor,
  request: Command["request"],
): Promise<{ readonly keyId: number; readonly revision: number; readonly recorded: boolean }> {
  for (let i = 0; i < MAX_TRIES; i++) {
    await keyring.unseal();
    const seed = await keyring.wrapNew(keyring.active().id + 1);
    const args = { id: seed.id, provider: seed.provider, kms_key_id: seed.kmsKeyId, wrapped: Buffer.from(seed.wrapped).toString("base64") };
    const outcome = await committer.commit({ kind: "keyring.rotate", path: "sys/keyring", actor, request, args });
    if (!outcome.ok && outcome.reason === "STALE") continue;
    if (!outcome.ok) throw refusal(outcome);
    await keyring.unseal();
    return { keyId: Number(outcome.result["id"]), revision: outcome.revision, recorded: outcome.replay !== true };
  }
  throw new LeaseholdError("STORE_UNAVAILABLE", "the keyring kept changing", { retryAfterMs: 100 });
}
