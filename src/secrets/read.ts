import { LeaseholdError } from "../base/errors.ts";
import { openPrepared, prepare } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import { MemorySeal } from "../crypto/memory-seal.ts";
import type { SecretMeta, Selector, VersionMeta } from "../model/secret.ts";
import type { Db } from "../store/db.ts";
import type { LedgerClock } from "../store/ledger-clock.ts";
import { findSecret, findVersion } from "../store/secrets.ts";
import { SecretCache, type CachedVersion } from "./cache.ts";
import { secretBinding } from "./binding.ts";

/** A secret that was read: its payload is the sealed message, opened: fresh bytes, for the caller to wipe. */
export interface ReadSecret {
  readonly secret: SecretMeta;
  readonly version: VersionMeta;
  readonly payload: Uint8Array;
}

export const CURRENT: Selector = { kind: "label", label: "CURRENT" };

/** Reads from the sealed cache, else from the store. */
export class SecretReader {
  readonly #db: Db;
  readonly #keyring: Keyring;
  readonly #clock: LedgerClock;
  readonly #cache = new SecretCache();
  readonly #memory = new MemorySeal();
  /** Told of every value that was opened; must not throw. */
  onRead: ((path: string, version: number) => void) | undefined;

  constructor(db: Db, keyring: Keyring, clock: LedgerClock) {
    this.#db = db;
    this.#keyring = keyring;
    this.#clock = clock;
  }

  /**
   * Answers at once when the version is cached (the hot path), else by a promise. Throws SECRET_NOT_FOUND, SECRET_DELETED,
   * VERSION_NOT_FOUND, VERSION_DELETED, VERSION_DESTROYED, VERSION_NOT_YET_VALID, VERSION_EXPIRED, SEALED.
   */
  get(path: string, selector: Selector): ReadSecret | Promise<ReadSecret> {
    const entry = this.#cache.get(path);
    if (entry !== undefined) {
      const cached = entry.versions.get(versionNumber(entry.secret, selector));
      if (cached !== undefined) return this.#open(entry.secret, cached);
    }
    return this.#load(path, selector);
  }

  /** After a change of the path: the next read goes to the store. */
  forget(path: string): void {
    this.#cache.forget(path);
  }

  /** After a change of epoch or of the keyring. */
  forgetAll(): void {
    this.#cache.clear();
  }

  async #load(path: string, selector: Selector): Promise<ReadSecret> {
    const ticket = this.#cache.begin(path);
    let secret: SecretMeta | undefined;
    let cached: CachedVersion | undefined;
    try {
      secret = await findSecret(this.#db, path);
      if (secret === undefined) throw new LeaseholdError("SECRET_NOT_FOUND");
      if (secret.deletedAt !== undefined) throw new LeaseholdError("SECRET_DELETED");
      const number = versionNumber(secret, selector);
      const row = number === 0 ? undefined : await findVersion(this.#db, secret.uid, number);
      if (row === undefined) throw new LeaseholdError("VERSION_NOT_FOUND");
      const value = row.sealed === undefined ? undefined : await prepare(this.#keyring, row.sealed, secretBinding(secret.uid, number));
      cached = { meta: row.meta, value };
    } finally {
      this.#cache.end(ticket, secret, cached);
    }
    return this.#open(secret, cached);
  }

  #open(secret: SecretMeta, cached: CachedVersion): ReadSecret {
    const { meta, value } = cached;
    if (meta.destroyedAt !== undefined || value === undefined) throw new LeaseholdError("VERSION_DESTROYED");
    if (meta.deletedAt !== undefined) throw new LeaseholdError("VERSION_DELETED");
    if (meta.notBefore !== undefined || meta.expireAt !== undefined) {
      const now = this.#clock.now();
      if (meta.notBefore !== undefined && now < meta.notBefore) throw new LeaseholdError("VERSION_NOT_YET_VALID");
      if (meta.expireAt !== undefined && now >= meta.expireAt) throw new LeaseholdError("VERSION_EXPIRED");
    }
    if (this.#keyring.sealed) throw new LeaseholdError("SEALED");
    this.onRead?.(secret.path, meta.version);
    if ("number" in value) return { secret, version: meta, payload: this.#memory.open(value) };
    const payload = openPrepared(value);
    cached.value = this.#memory.keep(payload) ?? value;
    return { secret, version: meta, payload };
  }
}

function versionNumber(secret: SecretMeta, selector: Selector): number {
  if (selector.kind === "version") return selector.version;
  switch (selector.label) {
    case "CURRENT":
      return secret.currentVersion;
    case "PREVIOUS":
      return secret.previousVersion;
    case "PENDING":
      return secret.pendingVersion;
  }
}
