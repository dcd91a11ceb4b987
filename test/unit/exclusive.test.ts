import { describe, expect, it } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import type { ConnectionLimit } from "../../src/engines/engine.ts";
import { ExclusivePool } from "../../src/engines/exclusive.ts";

/** Places that pools share, as replicas share those of a target (src/catalog/target-slots.ts). */
function places(count: number): { readonly limit: ConnectionLimit; readonly scarce: () => void; readonly free: () => number } {
  let free = count;
  const listeners = new Set<() => void>();
  const take = async (): Promise<(() => void) | undefined> => (free === 0 ? undefined : (free--, () => void free++));
  const limit: ConnectionLimit = {
    tryAcquire: take,
    async acquire() {
      const place = await take();
      if (place === undefined) throw new LeaseholdError("TARGET_UNAVAILABLE", "busy", { metadata: { problem: "busy" } });
      return place;
    },
    onScarce(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
  return { limit, scarce: () => listeners.forEach((listener) => listener()), free: () => free };
}

describe("connections that are each used by one call at a time", () => {
  let open = 0;
  let most = 0;
  const pool = (limit?: ConnectionLimit, maxConnections = 8): ExclusivePool<{ broken: boolean }> =>
    new ExclusivePool(
      { maxConnections, limit, connectTimeoutMs: 1 },
      {
        open: async () => {
          most = Math.max(most, ++open);
          return { broken: false };
        },
        isUsable: (connection) => !connection.broken,
        discard: () => void open--,
        fault: (error) => (error instanceof LeaseholdError ? error : new LeaseholdError("TARGET_UNAVAILABLE", "lost")),
      },
    );
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  it("finding 28: never more than the places that all share, and every call has its turn", async () => {
    most = 0;
    const { limit, free } = places(3);
    const [one, two] = [pool(limit), pool(limit)];
    let done = 0;
    const work = async (): Promise<void> => {
      await turn();
      done++;
    };
    await Promise.all([one.use(work), two.use(work)]);
    await Promise.all(Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? one : two).use(work)));
    expect(done).toBe(42);
    expect(most).toBeLessThanOrEqual(3);
    one.close();
    two.close();
    expect([open, free()]).toEqual([0, 3]);
  });

  it("gives a place back when another replica has none, but not its last", async () => {
    const { limit, scarce, free } = places(2);
    const one = pool(limit);
    await Promise.all([one.use(turn), one.use(turn)]);
    expect(free()).toBe(0);
    scarce();
    scarce();
    expect(free()).toBe(1);
    const other = pool(limit);
    await other.use(turn);
    one.close();
    other.close();
    expect(free()).toBe(2);
  });

  it("a pool without any place fails those who wait, rather than leave them", async () => {
    const { limit } = places(1);
    const [one, two] = [pool(limit), pool(limit)];
    await one.use(turn);
    const failed = await Promise.allSettled([two.use(turn), two.use(turn), two.use(turn)]);
    expect(failed.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
    one.close();
    await two.use(turn);
    two.close();
  });

  it("a connection whose call failed gives its place back and is not used again", async () => {
    const { limit, free } = places(1);
    const one = pool(limit);
    await expect(one.use(() => Promise.reject(new Error("half open")))).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE" });
    expect([open, free()]).toEqual([0, 1]);
    await one.use(turn);
    one.close();
  });
});
