import { randomUUID } from "node:crypto";
import { LeaseholdError } from "../base/errors.ts";
import { keyIdOf, seal } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { Actor } from "../model/audit.ts";
import type { Selector } from "../model/secret.ts";
import type { Command, CommandKind, Committer, Outcome } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { findSecret } from "../store/secrets.ts";
import { secretBinding } from "./binding.ts";
import type { SecretReader } from "./read.ts";

/** The client's idempotency key, with a hash of the whole request. */
export type RequestKey = { readonly id: string; readonly hash: string } | undefined;

export interface PutOptions {
  /** Compare-and-set: the latest version the caller knows; 0: must not exist; undefined: unconditional. */
  readonly expectedVersion: number | undefined;
  /** Unix milliseconds. */
  readonly notBefore: number | undefined;
  readonly expireAt: number | undefined;
}

export interface Changed {
  readonly revision: number;
  readonly result: Readonly<Record<string, unknown>>;
  /** False for a replay of a known request_id: nothing was done now. */
  readonly recorded: boolean;
}

const MAX_TRIES = 20;

/** Changes secrets, by commands to the committer. Reads nothing but what it needs to seal: the uid and the next version number. */
export class SecretWriter {
  readonly #db: Db;
  readonly #keyring: Keyring;
  readonly #committer: Committer;
  readonly #reader: SecretReader;
  /** Writes of one path, one after the other: the version number is part of what is sealed, so two at once would only make one another stale. */
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(db: Db, keyring: Keyring, committer: Committer, reader: SecretReader) {
    this.#db = db;
    this.#keyring = keyring;
    this.#committer = committer;
    this.#reader = reader;
  }

  /** Seals `payload` as the next version and makes it CURRENT. Throws VERSION_MISMATCH, SECRET_DELETED, CONFLICT, SEALED. */
  put(path: string, payload: Uint8Array, options: PutOptions, actor: Actor, request: RequestKey): Promise<Changed> {
    return this.#inTurn(path, async () => {
      for (let i = 0; i < MAX_TRIES; i++) {
        const secret = await findSecret(this.#db, path);
        const uid = secret?.uid ?? randomUUID();
        const version = (secret?.latestVersion ?? 0) + 1;
        const sealed = seal(this.#keyring, secretBinding(uid, version), payload);
        const args = {
          uid,
          version,
          sealed: Buffer.from(sealed).toString("base64"),
          key_id: keyIdOf(sealed),
          expected_version: options.expectedVersion,
          not_before: iso(options.notBefore),
          expire_at: iso(options.expireAt),
        };
        const outcome = await this.#committer.commit({ kind: "secret.put", path, actor, request, args });
        if (outcome.ok || outcome.reason !== "STALE") return this.#finish(path, outcome);
      }
      throw new LeaseholdError("STORE_UNAVAILABLE", "the secret kept changing", { retryAfterMs: 100 });
    });
  }

  /** Writes the data of an older version as a new one. Validity bounds are not carried over. */
  async rollback(path: string, toVersion: number, expectedVersion: number | undefined, actor: Actor, request: RequestKey): Promise<Changed> {
    const from: Selector = { kind: "version", version: toVersion };
    const { payload } = await this.#reader.get(path, from);
    return this.put(path, payload, { expectedVersion, notBefore: undefined, expireAt: undefined }, actor, request);
  }

  updateMetadata(
    path: string,
    change: { readonly labels?: Record<string, string>; readonly annotations?: Record<string, string>; readonly max_versions?: number; readonly etag: string },
    actor: Actor,
    request: RequestKey,
  ): Promise<Changed> {
    return this.#change("secret.update_metadata", path, change, actor, request);
  }

  changeVersions(kind: "delete" | "undelete" | "destroy", path: string, versions: readonly number[], actor: Actor, request: RequestKey): Promise<Changed> {
    return this.#change(`secret.${kind}_versions`, path, { versions: [...new Set(versions)] }, actor, request);
  }

  /** @param recoveryMs how long it can be restored; 0 erases at the next purge. */
  delete(path: string, recoveryMs: number, etag: string, actor: Actor, request: RequestKey): Promise<Changed> {
    return this.#change("secret.delete", path, { recovery_ms: recoveryMs, etag }, actor, request);
  }

  restore(path: string, actor: Actor, request: RequestKey): Promise<Changed> {
    return this.#change("secret.restore", path, {}, actor, request);
  }

  /** Erases a secret whose recovery window is over, by the database's clock. Answers false when it isn't, or is gone. */
  async purge(path: string, actor: Actor): Promise<boolean> {
    const outcome = await this.#committer.commit({ kind: "secret.purge", path, actor, args: {} });
    this.#reader.forget(path);
    return outcome.ok;
  }

  async #change(kind: CommandKind, path: string, args: Command["args"], actor: Actor, request: RequestKey): Promise<Changed> {
    return this.#finish(path, await this.#committer.commit({ kind, path, actor, request, args }));
  }

  #finish(path: string, outcome: Outcome): Changed {
    if (!outcome.ok) throw refusal(outcome);
    this.#reader.forget(path);
    return { revision: outcome.revision, result: outcome.result, recorded: outcome.replay !== true };
  }

  async #inTurn<T>(path: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(path) ?? Promise.resolve();
    const mine = before.then(work, work);
    this.#turns.set(path, mine);
    try {
      return await mine;
    } finally {
      if (this.#turns.get(path) === mine) this.#turns.delete(path);
    }
  }
}

function iso(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : new Date(ms).toISOString();
}
