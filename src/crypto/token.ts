import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject, randomBytes } from "node:crypto";
import type { Keyring } from "./keyring.ts";

const FORMAT = 1;
const IV_BYTES = 12;
const TAG_BYTES = 16;

/**
 * Seals small texts that go out to clients and come back (page tokens): format (1 byte) · iv · tag · ciphertext, AES-256-GCM under a key of the keyring for
 * this purpose, the context authenticated.
 */
export class TokenBox {
  readonly #keyring: Keyring;
  readonly #purpose: string;
  #key: KeyObject | undefined;

  constructor(keyring: Keyring, purpose: string) {
    this.#keyring = keyring;
    this.#purpose = purpose;
  }

  /** Throws SEALED. */
  seal(plaintext: Uint8Array, context: Uint8Array): Uint8Array {
    const iv = randomBytes(IV_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#derived(), iv);
    cipher.setAAD(context);
    const body = Buffer.concat([cipher.update(plaintext), cipher.final()]);
    return Buffer.concat([Buffer.of(FORMAT), iv, cipher.getAuthTag(), body]);
  }

  /** Undefined for anything that was not sealed in this context. Throws SEALED. */
  open(sealed: Uint8Array, context: Uint8Array): Uint8Array | undefined {
    const tagAt = 1 + IV_BYTES;
    const bodyAt = tagAt + TAG_BYTES;
    if (sealed.length < bodyAt || sealed[0] !== FORMAT) return undefined;
    const decipher = createDecipheriv("aes-256-gcm", this.#derived(), sealed.subarray(1, tagAt), { authTagLength: TAG_BYTES });
    decipher.setAAD(context);
    decipher.setAuthTag(sealed.subarray(tagAt, bodyAt));
    try {
      return Buffer.concat([decipher.update(sealed.subarray(bodyAt)), decipher.final()]);
    } catch {
      return undefined;
    }
  }

  #derived(): KeyObject {
    return (this.#key ??= createSecretKey(this.#keyring.deriveKey(this.#purpose)));
  }
}
