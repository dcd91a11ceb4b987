import { createPublicKey, generateKeyPairSync, sign, verify, type KeyObject } from "node:crypto";

/** Algorithm id of every signature below; a verifier refuses what it does not know. */
export const SIGNATURE_ALGORITHM = "ed25519";
// SubjectPublicKeyInfo of an Ed25519 key without the 32 key bytes (RFC 8410).
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");

/** The process's own signing key for audit heads: made at start, never stored; the KMS vouches for it in the chain's opening. */
export interface ProcessKey {
  /** Base64 of the raw 32 bytes. */
  readonly publicKey: string;
  sign(text: string): Uint8Array;
}

export function createProcessKey(): ProcessKey {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const raw = publicKey.export({ type: "spki", format: "der" }).subarray(SPKI_PREFIX.length);
  return { publicKey: raw.toString("base64"), sign: (text) => sign(null, Buffer.from(text), privateKey) };
}

export function verifySignature(rawPublicKey: Uint8Array, text: string, signature: Uint8Array): boolean {
  try {
    return verify(null, Buffer.from(text), keyOf(rawPublicKey), signature);
  } catch {
    return false; // a key that is none
  }
}

function keyOf(raw: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([SPKI_PREFIX, raw]), format: "der", type: "spki" });
}
