import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MemorySeal } from "../../src/crypto/memory-seal.ts";

const bytes = (length: number): Uint8Array => new Uint8Array(randomBytes(length));

describe("the seal of values in memory", () => {
  it("opens what it kept, again and again, whatever its length", () => {
    const memory = new MemorySeal();
    const kept = fc.uint8Array({ maxLength: 4096, size: "max" }).map((plaintext) => ({ plaintext, value: memory.keep(plaintext)! }));
    fc.assert(
      fc.property(fc.array(kept, { minLength: 1, maxLength: 5 }), (values) => {
        for (const { plaintext, value } of [...values, ...values.toReversed()]) expect(Buffer.from(memory.open(value))).toEqual(Buffer.from(plaintext));
      }),
      { numRuns: 50 },
    );
  });

  it("keeps nothing of the plaintext, and no two values under the same stream", () => {
    const memory = new MemorySeal();
    const zeros = new Uint8Array(4096);
    const streams = [memory.keep(zeros)!, memory.keep(zeros)!, new MemorySeal().keep(zeros)!].flatMap(({ body }) =>
      Array.from({ length: body.length / 16 }, (_, i) => Buffer.from(body.subarray(i * 16, i * 16 + 16)).toString("hex")),
    );
    expect(new Set(streams).size).toBe(3 * 256);
  });

  it("is not the caller's memory, in or out", () => {
    const memory = new MemorySeal();
    const plaintext = bytes(300);
    const copy = plaintext.slice();
    const kept = memory.keep(plaintext)!;
    plaintext.fill(0);
    memory.open(kept).fill(0);
    expect(Buffer.from(memory.open(kept))).toEqual(Buffer.from(copy));
  });

  it("does not take what AES-GCM opens faster", () => {
    expect(new MemorySeal().keep(bytes(4096))).toBeDefined();
    expect(new MemorySeal().keep(bytes(4097))).toBeUndefined();
  });
});
