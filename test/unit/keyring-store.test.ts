import { inspect } from "node:util";
import { describe, expect, it } from "vitest";
import { isReason, LeaseholdError } from "../../src/base/errors.ts";
import { open, seal } from "../../src/crypto/envelope.ts";
import { Keyring, type SeedRecord } from "../../src/crypto/keyring.ts";
import { TokenBox } from "../../src/crypto/token.ts";
import type { Kms } from "../../src/kms/kms.ts";
import { masterKeyKms } from "../../src/kms/master-key.ts";

/** The table as the keyring knows it; `lists` counts, `before` runs within a list after the rows were read. */
class Table {
  rows: SeedRecord[] = [];
  lists = 0;
  before: () => Promise<void> = async () => undefined;

  async list(): Promise<SeedRecord[]> {
    this.lists++;
    const read = [...this.rows];
    await this.before();
    return read;
  }

  async insertIfAbsent(record: Omit<SeedRecord, "createdAt">): Promise<void> {
    if (!this.rows.some((row) => row.id === record.id)) this.rows.push({ ...record, createdAt: 0 });
  }

  async rotate(ring: Keyring, id: number): Promise<void> {
    await this.insertIfAbsent(await ring.wrapNew(id));
    await ring.unseal();
  }
}

const master = (byte: number, ...older: number[]): Kms =>
  masterKeyKms(
    "test",
    [byte, ...older].map((one) => new Uint8Array(32).fill(one)),
  );
const binding = { namespaceId: 1, kind: "secret", rowUid: "r", version: 1 } as const;
const text = (value: string): Uint8Array => new Uint8Array(Buffer.from(value));
const opened = async (ring: Keyring, sealed: Uint8Array): Promise<string> => Buffer.from(await open(ring, sealed, binding)).toString();
const sealedError = expect.objectContaining({ reason: "SEALED" });

async function openRing(table: Table, kms: Kms = master(7)): Promise<Keyring> {
  const ring = new Keyring(table, kms);
  expect(await ring.unseal()).toBe(true);
  return ring;
}

describe("the keyring and its store", () => {
  it("after a restore seals with the seed that now has the id, not with the one it remembers", async () => {
    const table = new Table();
    const ring = await openRing(table);
    await table.rotate(ring, 2);
    const lost = seal(ring, binding, text("under the seed that is gone"));
    table.rows.pop();
    const other = await openRing(table);
    await table.rotate(other, 2);
    await ring.unseal();
    expect(await opened(other, seal(ring, binding, text("x")))).toBe("x");
    expect(isReason(await open(ring, lost, binding).catch((error: unknown) => error), "SEALED")).toBe(true);
  });

  it("never makes a first seed again while it holds one: an emptied table seals the ring", async () => {
    const table = new Table();
    const ring = await openRing(table);
    table.rows = [];
    expect(await ring.unseal()).toBe(false);
    expect(table.rows).toHaveLength(0);
    expect(() => seal(ring, binding, text("x"))).toThrow(sealedError);
    expect(ring.problem).toContain("keyring_seed");
  });

  it("goes on with the seeds it has when a newer one does not open, unless they are no longer the store's", async () => {
    const table = new Table();
    const ring = await openRing(table);
    const sealed = seal(ring, binding, text("x"));
    await table.insertIfAbsent(await new Keyring(table, master(8)).wrapNew(2));
    expect(await ring.unseal()).toBe(false);
    expect([ring.sealed, ring.activeId, await opened(ring, sealed)]).toEqual([false, 1, "x"]);
    table.rows.shift();
    expect(await ring.unseal()).toBe(false);
    expect(ring.sealed).toBe(true);
  });

  it("a replica that starts while one seed does not open is sealed, whole", async () => {
    const table = new Table();
    await openRing(table);
    await table.insertIfAbsent(await new Keyring(table, master(8)).wrapNew(2));
    const ring = new Keyring(table, master(7));
    expect(await ring.unseal()).toBe(false);
    expect(ring.sealed).toBe(true);
    expect(() => ring.deriveKey("a")).toThrow(sealedError);
  });

  it("opens once the KMS can be asked again", async () => {
    const table = new Table();
    const inner = master(7);
    let down = true;
    const kms: Kms = {
      ...inner,
      unwrap: async (wrapped, context) => {
        if (down) throw new LeaseholdError("KMS_UNAVAILABLE", "no route");
        return inner.unwrap(wrapped, context);
      },
    };
    const ring = new Keyring(table, kms);
    expect(await ring.unseal()).toBe(false);
    expect([ring.sealed, ring.problem]).toEqual([true, "no route"]);
    down = false;
    expect(await ring.unseal()).toBe(true);
    expect([ring.sealed, ring.problem]).toEqual([false, ""]);
    expect(await opened(ring, seal(ring, binding, text("x")))).toBe("x");
  });

  it("a look that began before a rotation does not hide it from one that was asked for after", async () => {
    const table = new Table();
    const ring = await openRing(table);
    const seed = await ring.wrapNew(2);
    const read = Promise.withResolvers<void>();
    table.before = () => read.promise;
    const early = ring.unseal();
    await table.insertIfAbsent(seed);
    const late = [ring.unseal(), ring.unseal(), ring.unseal()];
    table.before = async () => undefined;
    read.resolve();
    await Promise.all([early, ...late]);
    expect(ring.activeId).toBe(2);
    expect(table.lists).toBe(4); // two to start, the early one, and one for all the late ones
  });

  it("a store that can't be asked is no reason to seal", async () => {
    const table = new Table();
    const ring = await openRing(table);
    table.before = () => Promise.reject(new LeaseholdError("STORE_UNAVAILABLE"));
    expect(isReason(await ring.unseal().catch((error: unknown) => error), "STORE_UNAVAILABLE")).toBe(true);
    expect(ring.sealed).toBe(false);
  });

  it("finding 40: a purpose key is that of a named seed, and SEALED when that seed is retired, never silently another one", async () => {
    const table = new Table();
    const ring = await openRing(table);
    const first = Buffer.from(ring.deriveKey("a"));
    await table.rotate(ring, 2);
    expect(first.equals(ring.deriveKey("a", 1))).toBe(true);
    expect(first.equals(ring.deriveKey("a", 2))).toBe(false);
    table.rows.shift();
    await ring.unseal();
    expect(() => ring.deriveKey("a")).toThrow(sealedError);
  });

  it("shows no seed to whoever prints it", async () => {
    const table = new Table();
    const seeds: string[] = [];
    const inner = master(7);
    const kms: Kms = {
      ...inner,
      unwrap: async (wrapped, context) => {
        const seed = await inner.unwrap(wrapped, context);
        seeds.push(Buffer.from(seed).toString("hex"), Buffer.from(seed).toString("base64"));
        return seed;
      },
    };
    const ring = await openRing(table, kms);
    const printed =
      inspect(ring, { depth: 9, showHidden: true }) +
      JSON.stringify(ring) +
      JSON.stringify(ring.active()) +
      inspect(ring.active(), { depth: 9, showHidden: true });
    expect(seeds).toHaveLength(2);
    for (const seed of seeds) expect(printed.includes(seed)).toBe(false);
  });
});

describe("tokens over a rotation", () => {
  it("finding 40: names its key, opens with the seed it was sealed with, and seals with the newest", async () => {
    const table = new Table();
    const ring = await openRing(table);
    const box = new TokenBox(ring, "page-token");
    const before = box.seal(text("a"), text("list"));
    await table.rotate(ring, 2);
    const after = box.seal(text("b"), text("list"));
    expect([Buffer.from(before).readUInt32BE(2), Buffer.from(after).readUInt32BE(2)]).toEqual([1, 2]);
    expect([before, after].map((token) => Buffer.from(box.open(token, text("list"))!).toString())).toEqual(["a", "b"]);
    table.rows.shift();
    await ring.unseal();
    expect(box.open(before, text("list"))).toBeUndefined();
  });

  it("of a replica that has just rotated: try again, then it opens", async () => {
    const table = new Table();
    const [one, two] = [await openRing(table), await openRing(table)];
    await table.rotate(one, 2);
    const token = new TokenBox(one, "page-token").seal(text("a"), text("list"));
    const box = new TokenBox(two, "page-token");
    expect(() => box.open(token, text("list"))).toThrow(expect.objectContaining({ reason: "SEALED", retryAfterMs: 100 }));
    await two.unseal();
    expect(Buffer.from(box.open(token, text("list"))!).toString()).toBe("a");
  });

  it("throws SEALED while the ring is sealed", () => {
    const box = new TokenBox(new Keyring(new Table(), master(7)), "page-token");
    expect(() => box.seal(text("a"), text("list"))).toThrow(sealedError);
    expect(() => box.open(new Uint8Array(64).fill(1), text("list"))).toThrow(sealedError);
  });
});
