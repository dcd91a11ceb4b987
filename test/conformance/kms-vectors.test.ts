import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { Keyring } from "../../src/crypto/keyring.ts";
import { openKms } from "../../src/kms/registry.ts";
import type { Kms } from "../../src/kms/kms.ts";

interface Vectors {
  readonly key: string;
  readonly keyId: string;
  readonly context: string;
  readonly seed: string;
  readonly wrapped: string;
  /** Wrapped by a development version, before there was a header. */
  readonly publicKey: string;
  readonly signed: { readonly data: string; readonly signature: string };
  readonly purposeKeys: Readonly<Record<string, string>>;
  readonly failures: readonly { readonly name: string; readonly key: string; readonly context: string; readonly wrapped: string; readonly failure: string }[];
}

const vectors = JSON.parse(readFileSync(new URL("../vectors/kms.json", import.meta.url), "utf8")) as Vectors;
const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"));
const hexOf = (value: Uint8Array): string => Buffer.from(value).toString("hex");
const kmsOf = (key: string): Kms => openKms({ provider: "env", variable: "KEY" }, { KEY: key });

describe("master keys as they always were", () => {
  it("names, unwraps and signs", async () => {
    const kms = kmsOf(vectors.key);
    expect(kms.keyId).toBe(vectors.keyId);
    expect(hexOf(await kms.unwrap(bytes(vectors.wrapped), Buffer.from(vectors.context)))).toBe(vectors.seed);
    expect(hexOf(await kms.publicKey())).toBe(vectors.publicKey);
    expect(hexOf(await kms.sign(Buffer.from(vectors.signed.data)))).toBe(vectors.signed.signature);
  });

  it.each(vectors.failures)("refuses: $name", async ({ key, context, wrapped, failure }) => {
    const outcome = await kmsOf(key)
      .unwrap(bytes(wrapped), Buffer.from(context))
      .catch((error: unknown) => (error instanceof LeaseholdError ? error.reason : error));
    expect(outcome).toBe(failure);
  });

  it.each(Object.entries(vectors.purposeKeys))("derives the purpose key %s", async (purpose, expected) => {
    const record = { id: 1, provider: "env", kmsKeyId: vectors.keyId, wrapped: bytes(vectors.wrapped), createdAt: 0 };
    const ring = new Keyring({ list: async () => [record], insertIfAbsent: async () => undefined }, kmsOf(vectors.key));
    expect(await ring.unseal()).toBe(true);
    expect(hexOf(ring.deriveKey(purpose))).toBe(expected);
  });
});
