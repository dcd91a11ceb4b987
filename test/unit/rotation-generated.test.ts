import { createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { describe, expect, it } from "vitest";
import { generated } from "../../src/rotation/generated/definition.ts";
import { type GeneratedField, KEY_ALGORITHMS } from "../../src/rotation/generated/config.ts";
import { newFields } from "../../src/rotation/generated/values.ts";

async function made(field: GeneratedField): Promise<Record<string, string>> {
  return Object.fromEntries((await newFields(field)).map(([name, { value }]) => [name, value.revealText()]));
}

describe("generated values", () => {
  it.each(KEY_ALGORITHMS)("a key pair %s: two halves of one key, of that kind", async (algorithm) => {
    const { key, key_public: half } = await made({ name: "key", kind: "key_pair", publicName: "key_public", algorithm });
    const [privateKey, publicKey] = [createPrivateKey(key!), createPublicKey(half!)];
    expect(createPublicKey(privateKey).export({ type: "spki", format: "pem" })).toBe(half);
    const [type, size] = algorithm.split("_");
    expect(privateKey.asymmetricKeyType).toBe(type);
    if (type === "rsa") expect(privateKey.asymmetricKeyDetails?.modulusLength).toBe(Number(size));
    if (type === "ec") expect(privateKey.asymmetricKeyDetails?.namedCurve).toBe(size === "p256" ? "prime256v1" : "secp384r1");
    if (type === "x25519") return;
    const digest = type === "ed25519" ? null : "sha256";
    expect(verify(digest, Buffer.from("m"), publicKey, sign(digest, Buffer.from("m"), privateKey))).toBe(true);
  });

  it("random bytes in their encodings, never twice the same", async () => {
    const field = (encoding: "base64url" | "hex" | "raw"): GeneratedField => ({ name: "r", kind: "random", size: 32, encoding });
    expect((await made(field("hex")))["r"]).toMatch(/^[0-9a-f]{64}$/);
    expect((await made(field("base64url")))["r"]).toMatch(/^[\w-]{43}$/);
    const [raw] = await newFields(field("raw"));
    expect([raw![1].kind, raw![1].value.reveal().length]).toEqual(["bytes", 32]);
    const values = await Promise.all(Array.from({ length: 100 }, () => made(field("hex"))));
    expect(new Set(values.map((value) => value["r"])).size).toBe(100);
  });

  it("refuses two that are made into one field, and policies that hardly a password fits", () => {
    const pair: GeneratedField = { name: "a", kind: "key_pair", publicName: "b", algorithm: "ed25519" };
    expect(generated.check({ fields: [pair, { name: "b", kind: "random", size: 16, encoding: "hex" }] })).toEqual([
      { field: "fields[1].name", description: "is made twice" },
    ]);
    const policy = { length: 24, minUpper: 0, minLower: 0, minDigits: 24, minSymbols: 0 };
    expect(generated.check({ fields: [{ name: "p", kind: "password", policy }] })).toMatchObject([{ field: "fields[0].password.min_digits" }]);
  });
});
