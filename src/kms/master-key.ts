import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  hash,
  hkdfSync,
  type KeyObject,
  randomBytes,
  sign,
} from "node:crypto";
import { LeaseholdError } from "../base/errors.ts";
import type { Kms } from "./kms.ts";

/**
 * What a master key wrapped: format (1 byte) · algorithm (1) · key id (8) · iv (12) · tag (16) · ciphertext. The first three and the caller's context are authenticated.
 * Vectors: test/vectors/kms.json.
 */
const FORMAT = 1;
/** AES-256-GCM with a subkey by HKDF-SHA-256. */
const ALGORITHM = 1;
const HEADER_BYTES = 10;
const IV_BYTES = 12;
const TAG_BYTES = 16;
const GCM = { authTagLength: TAG_BYTES } as const;
const MASTER_KEY_BYTES = 32;
// PKCS#8 of an Ed25519 key without its 32 secret bytes (RFC 8410).
const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");

interface WrappingKey {
  readonly id: string;
  readonly key: KeyObject;
}

/**
 * A KMS made of master keys in this process's memory: what `file` and `env` have in common. The first key wraps and signs, each of them unwraps, so that a master key
 * can be replaced. Key id: a hash of the key.
 * @param keys at least one; they are wiped, so that only OpenSSL's memory holds what was derived from them.
 */
export function masterKeyKms(provider: string, keys: readonly Uint8Array[]): Kms {
  const known = keys.map((key): WrappingKey => ({ id: keyId(key), key: wrappingKey(key) }));
  const current = known[0]!;
  const signing = signingKey(keys[0]!);
  for (const key of keys) key.fill(0);
  const publicKey = createPublicKey(signing).export({ type: "spki", format: "der" }).subarray(-32);
  return {
    provider,
    keyId: current.id,
    async wrap(plaintext, context) {
      const header = Buffer.concat([Buffer.of(FORMAT, ALGORITHM), Buffer.from(current.id, "hex")]);
      const iv = randomBytes(IV_BYTES);
      const cipher = createCipheriv("aes-256-gcm", current.key, iv, GCM);
      cipher.setAAD(Buffer.concat([header, context]));
      const body = Buffer.concat([cipher.update(plaintext), cipher.final()]);
      return Buffer.concat([header, iv, cipher.getAuthTag(), body]);
    },
    async unwrap(wrapped, context) {
      if (wrapped[0] !== FORMAT || wrapped[1] !== ALGORITHM) {
        throw new LeaseholdError("SEALED", "not a wrapped seed of a known format");
      }
      const id = Buffer.from(wrapped.subarray(2, HEADER_BYTES)).toString("hex");
      const key = known.find((one) => one.id === id);
      if (key === undefined)
        throw new LeaseholdError(
          "SEALED",
          `the ${provider} key (${current.id}) does not open the keyring: it is another key than the one it was wrapped with (${id})`,
        );
      const plaintext = tryUnwrap(key.key, wrapped, HEADER_BYTES, context);
      if (plaintext === undefined) throw new LeaseholdError("SEALED", `what key ${id} wrapped was altered, or belongs elsewhere`);
      return plaintext;
    },
    async sign(data) {
      return sign(null, data, signing);
    },
    async publicKey() {
      return publicKey;
    },
  };
}

/** Undefined when it does not open. @param at length of the header, which is authenticated with the context. */
function tryUnwrap(key: KeyObject, wrapped: Uint8Array, at: number, context: Uint8Array): Uint8Array | undefined {
  const [tagAt, bodyAt] = [at + IV_BYTES, at + IV_BYTES + TAG_BYTES];
  if (wrapped.length < bodyAt) return undefined;
  const decipher = createDecipheriv("aes-256-gcm", key, wrapped.subarray(at, tagAt), GCM);
  decipher.setAAD(Buffer.concat([wrapped.subarray(0, at), context]));
  decipher.setAuthTag(wrapped.subarray(tagAt, bodyAt));
  const plaintext = decipher.update(wrapped.subarray(bodyAt));
  try {
    decipher.final();
    return plaintext;
  } catch {
    return undefined;
  }
}

/** 8 bytes in hexadecimal. */
function keyId(key: Uint8Array): string {
  return hash("sha256", Buffer.concat([Buffer.from("leasehold/v1/kms-key-id"), key])).slice(0, 16);
}

function subkey(key: Uint8Array, purpose: string): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", key, new Uint8Array(), `leasehold/v1/kms/${purpose}`, 32));
}

function wrappingKey(key: Uint8Array): KeyObject {
  const raw = subkey(key, "wrap");
  const wrapping = createSecretKey(raw);
  raw.fill(0);
  return wrapping;
}

function signingKey(key: Uint8Array): KeyObject {
  const raw = Buffer.concat([PKCS8_PREFIX, subkey(key, "sign")]);
  const signing = createPrivateKey({ key: raw, format: "der", type: "pkcs8" });
  raw.fill(0);
  return signing;
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
