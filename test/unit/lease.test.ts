import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import type { Target, TargetIdentity } from "../../src/engines/engine.ts";
import { Breaker } from "../../src/leases/breaker.ts";
import { TargetReach } from "../../src/leases/reach.ts";
import { TargetClocks } from "../../src/leases/target-clock.ts";
import { effectiveTtl, renewShare } from "../../src/model/lease.ts";

const ROLE = { defaultTtlMs: 3_600_000, maxTtlMs: 7_200_000 };
const away = (): LeaseholdError => new LeaseholdError("TARGET_UNAVAILABLE", "away");

describe("lease times", () => {
  it("lesson 12: a TTL is the role's default or what was asked for, never cut", () => {
    expect(effectiveTtl(undefined, ROLE)).toBe(ROLE.defaultTtlMs);
    expect(effectiveTtl(ROLE.maxTtlMs, ROLE)).toBe(ROLE.maxTtlMs);
    expect(() => effectiveTtl(ROLE.maxTtlMs + 1, ROLE)).toThrow(
      expect.objectContaining({ reason: "TTL_ABOVE_MAXIMUM", metadata: { maximum: "7200s", source: "role.max_ttl" } }),
    );
    for (const ttl of [0, 999, -1]) expect(() => effectiveTtl(ttl, ROLE)).toThrow(expect.objectContaining({ reason: "REQUEST_INVALID" }));
  });

  it("lesson 13: clients are told to renew at two thirds, up to 5 % earlier, never later", () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (random) => {
        const share = renewShare(() => random);
        expect(share).toBeLessThanOrEqual(2 / 3);
        expect(share).toBeGreaterThan((2 / 3) * 0.95 - 1e-12);
      }),
    );
    expect(new Set(Array.from({ length: 50 }, () => renewShare())).size).toBeGreaterThan(40);
  });
});

describe("the circuit breaker", () => {
  const tripped = (): Breaker => {
    const breaker = new Breaker();
    for (let i = 0; i < 5; i++) {
      breaker.check();
      breaker.failed(away());
    }
    return breaker;
  };

  it("opens after five failures in a row to reach the target, and says for how long", () => {
    expect(() => tripped().check()).toThrow(expect.objectContaining({ reason: "TARGET_UNAVAILABLE", metadata: { problem: "circuit_open" } }));
    try {
      tripped().check();
    } catch (error) {
      expect((error as LeaseholdError).retryAfterMs).toBeGreaterThan(0);
      expect((error as LeaseholdError).retryAfterMs).toBeLessThanOrEqual(1000);
    }
  });

  it("counts neither answers of the target nor failures of others", () => {
    const breaker = new Breaker();
    for (let i = 0; i < 20; i++) {
      breaker.failed(new LeaseholdError("STORE_UNAVAILABLE"));
      breaker.failed(new LeaseholdError("TARGET_UNAVAILABLE", "", { metadata: { problem: "deadline_passed" } }));
      breaker.failed(away());
      breaker.failed(new LeaseholdError("TARGET_MISCONFIGURED", "", { metadata: { problem: "owned_objects" } }));
    }
    expect(() => breaker.check()).not.toThrow();
  });

  it("closes when the target was reached", () => {
    const breaker = tripped();
    breaker.succeeded();
    expect(() => breaker.check()).not.toThrow();
  });
});

describe("the way to a target", () => {
  const reachOf = (open: () => Promise<Target<unknown>>, perTarget = 2, waiting = 2): TargetReach =>
    new TargetReach({ open }, { check: async () => {}, counts: async () => {} }, { perTarget, waiting });
  const target = {} as Target<unknown>;

  it("lets so many calls of clients in at a time, the next as one leaves, and refuses who would wait too long", async () => {
    const reach = reachOf(async () => target);
    let [inside, most] = [0, 0];
    const doors: (() => void)[] = [];
    const call = (uid: string): Promise<void> =>
      reach.call(uid, async () => {
        most = Math.max(most, ++inside);
        await new Promise<void>((resolve) => doors.push(resolve));
        inside--;
      });
    const calls = [call("a"), call("a"), call("a"), call("a")];
    await expect(call("a")).rejects.toMatchObject({ reason: "TARGET_UNAVAILABLE", metadata: { problem: "busy" } });
    const other = call("b");
    while (doors.length < 3) await Promise.resolve();
    for (let i = 0; i < 5; i++) {
      while (doors.length <= i) await Promise.resolve();
      doors[i]!();
    }
    await Promise.all([...calls, other]);
    expect(most).toBe(3); // two on a, one on b
  });

  it("lesson 22: who fails gives his place away; a target that can't be reached is not asked for a while", async () => {
    let opened = 0;
    const reach = reachOf(async () => {
      opened++;
      throw away();
    });
    for (let i = 0; i < 5; i++) await expect(reach.call("a", async () => {})).rejects.toMatchObject({ message: "away" });
    await expect(reach.call("a", async () => {})).rejects.toMatchObject({ metadata: { problem: "circuit_open" } });
    await expect(reach.use("a", async () => {})).rejects.toMatchObject({ metadata: { problem: "circuit_open" } });
    expect(opened).toBe(5);
    await expect(reach.use("b", async () => {})).rejects.toMatchObject({ message: "away" });
  });

  it.each(["call", "use"] as const)("after the pause the next %s tries the target, and closes the circuit when it is back", async (way) => {
    const clock = vi.spyOn(performance, "now");
    const start = performance.now();
    let back = false;
    const reach = reachOf(async () => {
      if (!back) throw away();
      return target;
    });
    clock.mockReturnValue(start);
    for (let i = 0; i < 5; i++) await expect(reach.call("a", async () => {})).rejects.toMatchObject({ message: "away" });
    clock.mockReturnValue(start + 60_000);
    await expect(reach[way]("a", async () => {})).rejects.toMatchObject({ message: "away" });
    back = true;
    clock.mockReturnValue(start + 120_000);
    await expect(reach[way]("a", async () => "done")).resolves.toBe("done");
    await expect(reach.call("a", async () => "again")).resolves.toBe("again");
  });
});

describe("a target's clock", () => {
  it("runs on from what the target said, whatever is done to ours, and is not asked for each use", async () => {
    let asked = 0;
    const identity: TargetIdentity = { systemIdentifier: "1", timeline: 1, inRecovery: false, serverVersion: "18", clockSkewMs: 3_600_000 };
    const target = {
      identify: async () => {
        asked++;
        return identity;
      },
    } as Target<unknown>;
    const clocks = new TargetClocks();
    const time = await clocks.ask(target);
    const ahead = time.now() - Date.now();
    expect(Math.abs(ahead - 3_600_000)).toBeLessThan(1000);
    expect((await clocks.ask(target)).identity).toBe(identity);
    expect(asked).toBe(1);
  });

  it("is asked again when the target did not answer", async () => {
    let asked = 0;
    const target = {
      identify: async () => {
        if (asked++ === 0) throw away();
        return { clockSkewMs: 0 } as TargetIdentity;
      },
    } as Target<unknown>;
    const clocks = new TargetClocks();
    await expect(clocks.ask(target)).rejects.toThrow("away");
    await expect(clocks.ask(target)).resolves.toBeDefined();
  });
});
