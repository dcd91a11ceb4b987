import { createCipheriv, createDecipheriv, createSecretKey, hash, type KeyObject, randomBytes } from "node:crypto";
import type { Keyring } from "./keyring.ts";

const IV_BYTES = 12;
const TAG_BYTES = 16;
const FORMAT = 1;

/**
 * Opaque tokens that tell nothing and fit one context only (AES-256-GCM; the context is authenticated). Form: format · iv · tag · (expiry, 8 bytes · payload), base64url.
 */
export class Tokens {
  readonly #keyring: Keyring;
  readonly #purpose: string;
  #key: KeyObject | undefined;

  constructor(keyring: Keyring, purpose: string) {
    this.#keyring = keyring;
    this.#purpose = purpose;
  }

  /** @param expiresAt Unix milliseconds. Throws SEALED. */
  seal(context: readonly string[], payload: string, expiresAt: number): string {
    const iv = randomBytes(IV_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#derived(), iv);
    cipher.setAAD(digest(context));
    const expiry = Buffer.alloc(8);
    expiry.writeDoubleBE(expiresAt);
    const body = Buffer.concat([cipher.update(Buffer.concat([expiry, Buffer.from(payload, "utf8")])), cipher.final()]);
    return Buffer.concat([Buffer.of(FORMAT), iv, cipher.getAuthTag(), body]).toString("base64url");
  }

  /** Undefined for a token of another context, altered, or past its expiry. Throws SEALED. */
  open(context: readonly string[], token: string, now: number): string | undefined {
    const bytes = Buffer.from(token, "base64url");
    if (bytes.length < 1 + IV_BYTES + TAG_BYTES + 8 || bytes[0] !== FORMAT) return undefined;
    const decipher = createDecipheriv("aes-256-gcm", this.#derived(), bytes.subarray(1, 1 + IV_BYTES), { authTagLength: TAG_BYTES });
    decipher.setAAD(digest(context));
    decipher.setAuthTag(bytes.subarray(1 + IV_BYTES, 1 + IV_BYTES + TAG_BYTES));
    try {
      const plain = Buffer.concat([decipher.update(bytes.subarray(1 + IV_BYTES + TAG_BYTES)), decipher.final()]);
      return plain.readDoubleBE(0) > now ? plain.subarray(8).toString("utf8") : undefined;
    } catch {
      return undefined;
    }
  }

  #derived(): KeyObject {
    return (this.#key ??= createSecretKey(this.#keyring.deriveKey(this.#purpose)));
  }
}

/** JSON of a list of texts is unambiguous: no two contexts have the same digest. */
function digest(context: readonly string[]): Uint8Array {
  return hash("sha256", JSON.stringify(context), "buffer");
}
