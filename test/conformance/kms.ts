import { verify, createPublicKey } from "node:crypto";
import { expect, it } from "vitest";
import { isReason } from "../../src/base/errors.ts";
import type { Kms } from "../../src/kms/kms.ts";

export interface KmsSetup {
  /** Opens the same key again, as another process would. */
  open(): Kms;
  /** A provider of the same kind with another key. */
  openOther(): Kms;
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** What every KMS provider must do. */
export function kmsConformance(setup: () => KmsSetup): void {
  it("unwraps what another process wrapped, in the same context", async () => {
    const wrapped = await setup().open().wrap(text("seed"), text("context"));
    expect(Buffer.from(await setup().open().unwrap(wrapped, text("context"))).toString()).toBe("seed");
  });

  it("wraps differently each time, and never in clear", async () => {
    const kms = setup().open();
    const [one, two] = [await kms.wrap(text("a recognisable seed"), text("c")), await kms.wrap(text("a recognisable seed"), text("c"))];
    expect(Buffer.from(one).equals(Buffer.from(two))).toBe(false);
    expect(Buffer.from(one).includes("recognisable")).toBe(false);
  });

  it.each(["context", "altered", "truncated", "other key"])("says SEALED, never garbage: %s", async (kind) => {
    const wrapped = await setup().open().wrap(text("seed"), text("context"));
    const altered = Buffer.from(wrapped);
    altered[altered.length - 1]! ^= 1;
    const kms = kind === "other key" ? setup().openOther() : setup().open();
    const given = kind === "altered" ? altered : kind === "truncated" ? wrapped.subarray(0, 10) : wrapped;
    const failure = await kms.unwrap(given, text(kind === "context" ? "another" : "context")).catch((error: unknown) => error);
    expect(isReason(failure, "SEALED")).toBe(true);
  });

  it("finding 40: says which key wrapped what it can't open", async () => {
    const wrapped = await setup().open().wrap(text("seed"), text("context"));
    const failure = await setup()
      .openOther()
      .unwrap(wrapped, text("context"))
      .catch((error: unknown) => error);
    expect(isReason(failure, "SEALED") && failure.message).toContain(setup().open().keyId);
  });

  it("opens no altered bit and no shorter end", async () => {
    const kms = setup().open();
    const wrapped = await kms.wrap(text("seed"), text("context"));
    const others = Array.from({ length: wrapped.length * 8 }, (_, bit) => {
      const altered = Uint8Array.from(wrapped);
      altered[bit >> 3]! ^= 1 << (bit & 7);
      return altered;
    });
    for (let length = 0; length < wrapped.length; length++) others.push(Uint8Array.from(wrapped.subarray(0, length)));
    const outcomes = await Promise.all(others.map((bytes) => kms.unwrap(bytes, text("context")).catch((error: unknown) => isReason(error, "SEALED"))));
    expect(outcomes.every((outcome) => outcome === true)).toBe(true);
  });

  it("signs with a key that its public key verifies, the same in every process", async () => {
    const kms = setup().open();
    const raw = await kms.publicKey();
    expect(Buffer.from(raw)).toHaveLength(32);
    expect(Buffer.from(await setup().open().publicKey()).equals(Buffer.from(raw))).toBe(true);
    const key = createPublicKey({ key: Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), raw]), format: "der", type: "spki" });
    expect(verify(null, text("statement"), key, await kms.sign(text("statement")))).toBe(true);
    expect(verify(null, text("another"), key, await kms.sign(text("statement")))).toBe(false);
  });

  it("names its key without giving it away", () => {
    const kms = setup().open();
    expect(kms.keyId).toMatch(/^[0-9a-f]{16}$/);
    expect(kms.keyId).toBe(setup().open().keyId);
    expect(kms.keyId).not.toBe(setup().openOther().keyId);
  });
}
