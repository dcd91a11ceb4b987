import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject, randomBytes } from "node:crypto";
import { LeaseholdError } from "../base/errors.ts";
import type { Keyring } from "./keyring.ts";

const FORMAT = 1;
/** AES-256-GCM under a key of the keyring for this purpose. */
const ALGORITHM = 1;
const HEADER_BYTES = 6;
const IV_BYTES = 12;
const TAG_BYTES = 16;
const IV_END = HEADER_BYTES + IV_BYTES;
const OVERHEAD = IV_END + TAG_BYTES;
const RETRY_MS = 100;
const GCM = { authTagLength: TAG_BYTES } as const;

/**
 * Seals small texts that go out to clients and come back (page tokens): format (1 byte) · algorithm (1) · key id (4, big endian) · iv (12) · tag (16) · ciphertext. The
 * header and the context are authenticated. No salt a token, as the envelope has: these live for a day, and their key changes with every rotation.
 */
export class TokenBox {
  readonly #keyring: Keyring;
  readonly #purpose: string;
  constructor(keyring: Keyring, purpose: string) {
    this.#keyring = keyring;
    this.#purpose = purpose;
  }

  /** Throws SEALED. */
  seal(plaintext: Uint8Array, context: Uint8Array): Uint8Array {
    const { id } = this.#keyring.active();
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt8(FORMAT, 0);
    header.writeUInt8(ALGORITHM, 1);
    header.writeUInt32BE(id, 2);
    const iv = randomBytes(IV_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#key(id), iv, GCM);
    cipher.setAAD(Buffer.concat([header, context]));
    const body = Buffer.concat([cipher.update(plaintext), cipher.final()]);
    return Buffer.concat([header, iv, cipher.getAuthTag(), body]);
  }

  /** Undefined for anything that was not sealed in this context. Throws SEALED, also (try again) for a seed so new that this replica does not know it. */
  open(sealed: Uint8Array, context: Uint8Array): Uint8Array | undefined {
    if (sealed.length < OVERHEAD || sealed[0] !== FORMAT || sealed[1] !== ALGORITHM) return undefined;
    const header = sealed.subarray(0, HEADER_BYTES);
    const id = Buffer.from(header).readUInt32BE(2);
    if (!this.#keyring.knows(id)) return this.#unknown(id);
    const decipher = createDecipheriv("aes-256-gcm", this.#key(id), sealed.subarray(HEADER_BYTES, IV_END), GCM);
    decipher.setAAD(Buffer.concat([header, context]));
    decipher.setAuthTag(sealed.subarray(IV_END, OVERHEAD));
    try {
      return Buffer.concat([decipher.update(sealed.subarray(OVERHEAD)), decipher.final()]);
    } catch {
      return undefined;
    }
  }

  /** Another replica may have rotated a moment ago: its token is no bad one. */
  #unknown(id: number): undefined {
    if (id !== this.#keyring.active().id + 1) return undefined;
    this.#keyring.unseal().catch(() => undefined); // the next try meets the same failure, if it is one
    throw new LeaseholdError("SEALED", `no seed ${id} yet`, { retryAfterMs: RETRY_MS });
  }

  /** Derived each time (10 µs, once a page), so that no key outlives its seed. */
  #key(id: number): KeyObject {
    const raw = this.#keyring.deriveKey(this.#purpose, id);
    const key = createSecretKey(raw);
    raw.fill(0);
    return key;
  }
}
