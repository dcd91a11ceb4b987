/**
 * A key management system: wraps the keyring's seeds and vouches for audit keys. All asynchronous, so that a remote KMS fits.
 * A provider is one folder beside this file plus one line in `registry.ts`; it passes `test/conformance/kms.ts`.
 */
export interface Kms {
  /** Provider name, `file` or `env`. */
  readonly provider: string;
  /** Names the key that wraps today; stored beside what it wrapped. */
  readonly keyId: string;
  /** `context` is authenticated, not stored: the same bytes must be given to unwrap. */
  wrap(plaintext: Uint8Array, context: Uint8Array): Promise<Uint8Array>;
  /** Throws LeaseholdError SEALED when the key is wrong or the bytes were altered, KMS_UNAVAILABLE when it can't be asked. */
  unwrap(wrapped: Uint8Array, context: Uint8Array): Promise<Uint8Array>;
  /** Ed25519 over the bytes. */
  sign(data: Uint8Array): Promise<Uint8Array>;
  /** Raw 32-byte Ed25519 public key of `sign`. */
  publicKey(): Promise<Uint8Array>;
}
