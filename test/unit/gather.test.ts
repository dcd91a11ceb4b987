import { describe, expect, it } from "vitest";
import { Gather } from "../../src/base/gather.ts";
import { randomPooled } from "../../src/base/random.ts";

describe("gather", () => {
  it("sends what is asked in one turn together, and what comes meanwhile in the next call", async () => {
    const calls: number[][] = [];
    const gates: (() => void)[] = [];
    const gather = new Gather<number, number>({
      run: async (items) => {
        calls.push([...items]);
        await new Promise<void>((resolve) => gates.push(resolve));
        return items.map((item) => item * 2);
      },
      lanes: 1,
      max: 3,
    });
    const first = [1, 2].map((item) => gather.add(item));
    await new Promise(setImmediate);
    const later = [3, 4, 5, 6].map((item) => gather.add(item));
    await new Promise(setImmediate);
    expect(calls).toEqual([[1, 2]]);
    while (calls.length < 3 || gates.length > 0) {
      gates.shift()?.();
      await new Promise(setImmediate);
    }
    expect(await Promise.all([...first, ...later])).toEqual([2, 4, 6, 8, 10, 12]);
    expect(calls).toEqual([[1, 2], [3, 4, 5], [6]]);
  });

  it("runs as many calls at a time as it has lanes", async () => {
    let [now, most] = [0, 0];
    const gather = new Gather<number, number>({
      run: async (items) => {
        most = Math.max(most, ++now);
        await new Promise(setImmediate);
        now--;
        return items;
      },
      lanes: 3,
      max: 1,
    });
    await Promise.all(Array.from({ length: 20 }, (_, i) => gather.add(i)));
    expect(most).toBe(3);
  });

  it("fails the item whose result is an error, and no other", async () => {
    const gather = new Gather<number, number>({ run: async (items) => items.map((item) => (item === 2 ? new Error("two") : item)), lanes: 1, max: 10 });
    const results = await Promise.allSettled([1, 2, 3].map((item) => gather.add(item)));
    expect(results.map((result) => result.status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
  });

  it("divides a call that one item sank, until that one stands alone; does not where nothing is known", async () => {
    let calls = 0;
    const run = async (items: readonly number[]): Promise<number[]> => {
      calls++;
      if (items.includes(5)) throw new Error("five");
      return [...items];
    };
    const divided = new Gather<number, number>({ run, lanes: 1, max: 16, divide: () => true });
    const results = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => divided.add(i)));
    expect(results.flatMap((result, i) => (result.status === "rejected" ? [i] : []))).toEqual([5]);
    expect(calls).toBe(7);
    const whole = new Gather<number, number>({ run, lanes: 1, max: 16, divide: () => false });
    expect((await Promise.allSettled([4, 5, 6].map((item) => whole.add(item)))).every((result) => result.status === "rejected")).toBe(true);
  });
});

describe("pooled random bytes", () => {
  it("are as many as asked, never the same, never shared", () => {
    const seen = new Set<string>();
    for (let i = 0; i < 2000; i++) {
      const bytes = randomPooled(1 + (i % 64));
      expect(bytes).toHaveLength(1 + (i % 64));
      if (bytes.length >= 16) seen.add(bytes.toString("hex"));
    }
    expect(seen.size).toBe(2000 - Array.from({ length: 2000 }, (_, i) => 1 + (i % 64)).filter((length) => length < 16).length);
    const [one, two] = [randomPooled(16), randomPooled(16)];
    one.fill(0);
    expect(two.every((byte) => byte === 0)).toBe(false);
    expect(() => randomPooled(10_000)).toThrow(RangeError);
  });
});
