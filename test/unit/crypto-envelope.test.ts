import { createSecretKey, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { type Binding, keyIdOf, openPrepared, prepareWith, sealWith } from "../../src/crypto/envelope.ts";

interface Vectors {
  readonly seals: readonly { name: string; keyId: number; seed: string; salt: string; iv: string; binding: Binding; plaintext: string; sealed: string }[];
  readonly failures: readonly { name: string; seed: string; binding: Binding; sealed: string; failure: string }[];
}

const vectors = JSON.parse(readFileSync(new URL("../vectors/envelope.json", import.meta.url), "utf8")) as Vectors;
const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"));
const seedOf = (hex: string): KeyObject => createSecretKey(Buffer.from(hex, "hex"));
const hexOf = (value: Uint8Array): string => Buffer.from(value).toString("hex");

describe("envelope", () => {
  it.each(vectors.seals)("seals as it always has: $name", (vector) => {
    const sealed = sealWith(vector.keyId, seedOf(vector.seed), vector.binding, bytes(vector.plaintext), bytes(vector.salt), bytes(vector.iv));
    expect(hexOf(sealed)).toBe(vector.sealed);
    expect(keyIdOf(sealed)).toBe(vector.keyId);
    expect(hexOf(openPrepared(prepareWith(seedOf(vector.seed), sealed, vector.binding)))).toBe(vector.plaintext);
  });

  it.each(vectors.failures)("refuses: $name", (vector) => {
    let reason = "";
    try {
      openPrepared(prepareWith(seedOf(vector.seed), bytes(vector.sealed), vector.binding));
    } catch (error) {
      reason = error instanceof LeaseholdError ? error.reason : String(error);
    }
    expect(reason).toBe(vector.failure);
  });

  it("finding 33: opens with exactly the binding it was sealed with", () => {
    const binding = fc.record({
      namespaceId: fc.nat(1000),
      kind: fc.constantFrom("secret" as const, "lease" as const, "target" as const),
      rowUid: fc.string({ maxLength: 40 }),
      version: fc.nat(1000),
    });
    const seed = seedOf("11".repeat(32));
    fc.assert(
      fc.property(binding, binding, fc.uint8Array({ maxLength: 64 }), (one, other, plaintext) => {
        const sealed = sealWith(7, seed, one, plaintext, bytes("22".repeat(32)), bytes("33".repeat(12)));
        const same = JSON.stringify(one) === JSON.stringify(other);
        let opened: Uint8Array | undefined;
        try {
          opened = openPrepared(prepareWith(seed, sealed, other));
        } catch {
          opened = undefined;
        }
        expect(opened === undefined ? undefined : hexOf(opened)).toBe(same ? hexOf(plaintext) : undefined);
        expect(hexOf(openPrepared(prepareWith(seed, sealed, one)))).toBe(hexOf(plaintext));
      }),
    );
  });

  it("lesson 56: no altered bit and no missing end opens, and each failure is SEALED", () => {
    const seed = seedOf("11".repeat(32));
    const binding: Binding = { namespaceId: 1, kind: "lease", rowUid: "a lease", version: 0 };
    const sealed = sealWith(7, seed, binding, bytes("00112233"), bytes("22".repeat(32)), bytes("33".repeat(12)));
    const attempt = (value: Uint8Array): string => {
      try {
        return hexOf(openPrepared(prepareWith(seed, value, binding)));
      } catch (error) {
        return error instanceof LeaseholdError ? error.reason : String(error);
      }
    };
    expect(attempt(sealed)).toBe("00112233");
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const altered = Uint8Array.from(sealed);
      altered[bit >> 3]! ^= 1 << (bit & 7);
      expect(attempt(altered), `bit ${bit}`).toBe("SEALED");
    }
    for (let length = 0; length < sealed.length; length++) expect(attempt(sealed.subarray(0, length)), `${length} bytes`).toBe("SEALED");
  });
});
