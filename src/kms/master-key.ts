import { createCipheriv, createDecipheriv, createPrivateKey, createPublicKey, hash, hkdfSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { LeaseholdError } from "../base/errors.ts";
import type { Kms } from "./kms.ts";

export const MASTER_KEY_BYTES = 32;
const IV_BYTES = 12;
const TAG_BYTES = 16;
// PKCS#8 of an Ed25519 key without its 32 secret bytes (RFC 8410).
const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");

/**
 * A KMS made of master keys in this process's memory: what `file` and `env` have in common. The first key wraps, each of them unwraps, so that a master key
 * can be replaced. Wrapped: iv · tag · ciphertext, by AES-256-GCM under a subkey; the signing key is derived too. Key id: a hash of the key.
 */
export function masterKeyKms(provider: string, keys: readonly Uint8Array[]): Kms {
  const parts = keys.map((key) => ({ id: keyId(key), wrapping: subkey(key, "wrap") }));
  const signing = signingKey(keys[0]!);
  const publicKey = createPublicKey(signing).export({ type: "spki", format: "der" }).subarray(-32);
  return {
    provider,
    keyId: parts[0]!.id,
    async wrap(plaintext, context) {
      const iv = randomBytes(IV_BYTES);
      const cipher = createCipheriv("aes-256-gcm", parts[0]!.wrapping, iv);
      cipher.setAAD(context);
      const body = Buffer.concat([cipher.update(plaintext), cipher.final()]);
      return Buffer.concat([iv, cipher.getAuthTag(), body]);
    },
    async unwrap(wrapped, context) {
      for (const { wrapping } of parts) {
        const plaintext = tryUnwrap(wrapping, wrapped, context);
        if (plaintext !== undefined) return plaintext;
      }
      throw new LeaseholdError("SEALED", `the ${provider} key does not open the keyring: it is another key than the one the store was sealed with`);
    },
    async sign(data) {
      return sign(null, data, signing);
    },
    async publicKey() {
      return publicKey;
    },
  };
}

function tryUnwrap(key: Uint8Array, wrapped: Uint8Array, context: Uint8Array): Uint8Array | undefined {
  if (wrapped.length < IV_BYTES + TAG_BYTES) return undefined;
  const decipher = createDecipheriv("aes-256-gcm", key, wrapped.subarray(0, IV_BYTES), { authTagLength: TAG_BYTES });
  decipher.setAAD(context);
  decipher.setAuthTag(wrapped.subarray(IV_BYTES, IV_BYTES + TAG_BYTES));
  try {
    return Buffer.concat([decipher.update(wrapped.subarray(IV_BYTES + TAG_BYTES)), decipher.final()]);
  } catch {
    return undefined;
  }
}

function keyId(key: Uint8Array): string {
  return hash("sha256", Buffer.concat([Buffer.from("leasehold/v1/kms-key-id"), key])).slice(0, 16);
}

function subkey(key: Uint8Array, purpose: string): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", key, new Uint8Array(), `leasehold/v1/kms/${purpose}`, 32));
}

function signingKey(key: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, subkey(key, "sign")]), format: "der", type: "pkcs8" });
}

/** One key a line, `leasehold-kms-v1:<base64 of 32 bytes>`; the first is the current one. Answers undefined for anything else. */
export function parseMasterKeys(text: string): Uint8Array[] | undefined {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  const keys = lines.map((line) => {
    const match = /^leasehold-kms-v1:([A-Za-z0-9+/]{43}=)\s*$/.exec(line);
    return match === null ? undefined : new Uint8Array(Buffer.from(match[1]!, "base64"));
  });
  return keys.length === 0 || keys.includes(undefined) ? undefined : (keys as Uint8Array[]);
}

export function newMasterKeyLine(): string {
  return `leasehold-kms-v1:${randomBytes(MASTER_KEY_BYTES).toString("base64")}\n`;
}
