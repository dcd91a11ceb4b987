import { createHmac, createSecretKey, type KeyObject } from "node:crypto";

const MAX_CACHED = 10_000;
const BYTES = 16;

/**
 * Keyed hashes of what records must not show in clear but must be comparable: lease ids and peers. 128 bits of HMAC-SHA-256, with the key's id, so
 * that a search can ask for all keys (finding 40). Peers repeat with every call, so the newest answers are kept (an HMAC costs 3 µs).
 */
export class Fingerprints {
  /** Prepared: 2 µs a hash, from raw bytes 12. */
  readonly #key: KeyObject;
  readonly #prefix: string;
  readonly #cache = new Map<string, string>();

  constructor(key: Uint8Array, keyId: number) {
    this.#key = createSecretKey(key);
    this.#prefix = `k${keyId}:`;
  }

  of(value: string): string {
    const known = this.#cache.get(value);
    if (known !== undefined) return known;
    const made = this.#prefix + createHmac("sha256", this.#key).update(value).digest().subarray(0, BYTES).toString("hex");
    if (this.#cache.size >= MAX_CACHED) this.#cache.clear();
    this.#cache.set(value, made);
    return made;
  }
}
