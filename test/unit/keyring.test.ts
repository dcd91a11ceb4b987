import { describe, expect, it } from "vitest";
import { isReason } from "../../src/base/errors.ts";
import { open, seal } from "../../src/crypto/envelope.ts";
import { Keyring, type SeedRecord, type SeedRecords } from "../../src/crypto/keyring.ts";
import { TokenBox } from "../../src/crypto/token.ts";
import { masterKeyKms } from "../../src/kms/master-key.ts";

/** The table's contract: the first writer of an id wins. */
function table(): SeedRecords & { readonly rows: SeedRecord[] } {
  const rows: SeedRecord[] = [];
  return {
    rows,
    list: async () => [...rows],
    insertIfAbsent: async (record) => {
      if (!rows.some((row) => row.id === record.id)) rows.push({ ...record, createdAt: 0 });
    },
  };
}

const kms = masterKeyKms("test", [new Uint8Array(32).fill(7)]);
const binding = { namespaceId: 1, kind: "secret", rowUid: "r", version: 1 } as const;
const text = (value: string): Uint8Array => new Uint8Array(Buffer.from(value));

describe("keyring", () => {
  it("two starting replicas agree on the first seed", async () => {
    const records = table();
    const rings = [new Keyring(records, kms), new Keyring(records, kms)];
    await Promise.all(rings.map((ring) => ring.unseal()));
    expect(records.rows).toHaveLength(1);
    expect(Buffer.from(await open(rings[1]!, seal(rings[0]!, binding, text("x")), binding)).toString()).toBe("x");
  });

  it("is sealed until it is opened, and with a wrong key stays so: SEALED, never garbage", async () => {
    const records = table();
    const first = new Keyring(records, kms);
    expect(() => seal(first, binding, text("x"))).toThrow(expect.objectContaining({ reason: "SEALED" }));
    await first.unseal();
    const sealed = seal(first, binding, text("x"));
    const other = new Keyring(records, masterKeyKms("test", [new Uint8Array(32).fill(8)]));
    expect(await other.unseal()).toBe(false);
    expect(other.sealed).toBe(true);
    expect(other.problem).toContain("another key");
    expect(isReason(await open(other, sealed, binding).catch((error: unknown) => error), "SEALED")).toBe(true);
    expect(records.rows).toHaveLength(1);
  });

  it("finds a seed that another replica added when it meets it", async () => {
    const records = table();
    const [one, two] = [new Keyring(records, kms), new Keyring(records, kms)];
    await one.unseal();
    await two.unseal();
    await records.insertIfAbsent(await one.wrapNew(2));
    await one.unseal();
    const sealed = seal(one, binding, text("new seed"));
    expect(one.activeId).toBe(2);
    expect(Buffer.from(await open(two, sealed, binding)).toString()).toBe("new seed");
  });

  it("keeps purpose keys the same over a rotation, and apart from one another", async () => {
    const records = table();
    const ring = new Keyring(records, kms);
    await ring.unseal();
    const before = Buffer.from(ring.deriveKey("a")).toString("hex");
    await records.insertIfAbsent(await ring.wrapNew(2));
    await ring.unseal();
    expect(Buffer.from(ring.deriveKey("a")).toString("hex")).toBe(before);
    expect(Buffer.from(ring.deriveKey("b")).toString("hex")).not.toBe(before);
  });

  it("tokens open in their own context only, and not when altered", async () => {
    const ring = new Keyring(table(), kms);
    await ring.unseal();
    const box = new TokenBox(ring, "page-token");
    const sealed = box.seal(text("secrets/hidden"), text("list"));
    expect(Buffer.from(box.open(sealed, text("list"))!).toString()).toBe("secrets/hidden");
    expect(box.open(sealed, text("other"))).toBeUndefined();
    expect(new TokenBox(ring, "other purpose").open(sealed, text("list"))).toBeUndefined();
    expect(Buffer.from(sealed).includes("hidden")).toBe(false);
    for (let i = 0; i < sealed.length; i++) {
      const altered = Uint8Array.from(sealed);
      altered[i]! ^= 1;
      expect(box.open(altered, text("list"))).toBeUndefined();
    }
    expect(box.open(new Uint8Array(0), text("list"))).toBeUndefined();
  });
});
