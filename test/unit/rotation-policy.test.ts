import { describe, expect, it } from "vitest";
import type { RotationPolicy } from "../../src/model/rotation.ts";
import { nextOfCalendar } from "../../src/rotation/calendar.ts";
import { decide, type Facts, lookAfter, planNext, policyViolations } from "../../src/rotation/policy.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const at = (text: string): number => Date.parse(text);
const iso = (ms: number | undefined): string | undefined => (ms === undefined ? undefined : new Date(ms).toISOString());
const next = (expression: string, timeZone: string, from: string): string | undefined => iso(nextOfCalendar({ expression, timeZone }, at(from)));

describe("times of the calendar", () => {
  it("are those of the time zone", () => {
    expect(next("0 3 * * *", "UTC", "2026-01-10T12:00:00Z")).toBe("2026-01-11T03:00:00.000Z");
    expect(next("0 3 * * *", "Europe/Berlin", "2026-01-10T12:00:00Z")).toBe("2026-01-11T02:00:00.000Z");
    expect(next("0 3 * * *", "Europe/Berlin", "2026-07-10T12:00:00Z")).toBe("2026-07-11T01:00:00.000Z");
    expect(next("30 9 * * MON-FRI", "America/New_York", "2026-01-09T20:00:00Z")).toBe("2026-01-12T14:30:00.000Z");
    expect(next("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z")).toBe("2028-02-29T00:00:00.000Z");
  });

  it("come once on the day a clock skips their hour, after the gap", () => {
    // Berlin, 29 March 2026: 02:00 becomes 03:00.
    const first = next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z")!;
    expect(at(first)).toBeGreaterThanOrEqual(at("2026-03-29T01:00:00Z"));
    expect(at(first)).toBeLessThan(at("2026-03-29T02:00:00Z"));
    expect(next("30 2 * * *", "Europe/Berlin", first)).toBe("2026-03-30T00:30:00.000Z");
  });

  it("come once on the day a clock repeats their hour", () => {
    // Berlin, 25 October 2026: 03:00 becomes 02:00.
    const first = next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z")!;
    expect(first).toBe("2026-10-25T00:30:00.000Z");
    expect(next("30 2 * * *", "Europe/Berlin", first)).toBe("2026-10-26T01:30:00.000Z");
  });
});

const facts = (more: Partial<Facts> = {}): Facts => ({
  now: at("2026-05-01T00:00:00Z"),
  plannedAt: undefined,
  windowEndsAt: undefined,
  reads: 0,
  findingAt: undefined,
  secret: { deleted: false, current: 1, previous: 0, latest: 1, createdAt: at("2026-04-01T00:00:00Z"), expireAt: undefined },
  ...more,
});

describe("when a rotation begins", () => {
  const daily: RotationPolicy = { schedule: { kind: "interval", everyMs: DAY } };
  const cron: RotationPolicy = { schedule: { kind: "cron", expression: "0 3 * * *", timeZone: "UTC", windowMs: HOUR } };

  it("at its planned time, with the schedule as its cause, and not before", () => {
    const { now } = facts();
    expect(decide(daily, facts({ plannedAt: now + 1 }))).toEqual({ plan: { plannedAt: now + 1, windowEndsAt: undefined }, lookAt: now + 1 });
    expect(decide(daily, facts({ plannedAt: now }))).toEqual({ begin: "interval" });
    expect(decide(daily, facts({ plannedAt: now - 30 * DAY }))).toEqual({ begin: "interval" });
  });

  it("lesson 24: a planned time that is missing is planned, it does not rotate", () => {
    const { now } = facts();
    expect(decide(daily, facts())).toMatchObject({ lookAt: now + DAY });
    expect(decide({}, facts())).toEqual({ plan: { plannedAt: undefined, windowEndsAt: undefined }, lookAt: undefined });
  });

  it("within its window; what is missed waits for the next time", () => {
    const plannedAt = at("2026-05-01T03:00:00Z");
    const windowEndsAt = plannedAt + HOUR;
    expect(decide(cron, facts({ now: windowEndsAt, plannedAt, windowEndsAt }))).toEqual({ begin: "cron" });
    const missed = decide(cron, facts({ now: windowEndsAt + 1, plannedAt, windowEndsAt }));
    expect(missed).toMatchObject({ lookAt: at("2026-05-02T03:00:00Z"), plan: { windowEndsAt: at("2026-05-02T04:00:00Z") } });
  });

  it("jitter puts a time off, once, never beyond the window's start it belongs to", () => {
    const jittered: RotationPolicy = { ...cron, jitterMs: HOUR };
    const { plannedAt, windowEndsAt } = planNext(jittered, at("2026-05-01T00:00:00Z"), () => 0.5);
    expect([iso(plannedAt), iso(windowEndsAt)]).toEqual(["2026-05-01T03:30:00.000Z", "2026-05-01T04:00:00.000Z"]);
    expect(decide(jittered, facts({ plannedAt, windowEndsAt }), () => 0.9)).toMatchObject({ plan: { plannedAt, windowEndsAt } });
  });

  it("by the first condition that holds", () => {
    const { now } = facts();
    const when = (conditions: RotationPolicy["conditions"], more: Partial<Facts> = {}) => decide({ ...(conditions && { conditions }) }, facts(more)).begin;
    expect(when({ maxReads: 0, onFinding: false, maxAgeMs: 30 * DAY })).toBe("age");
    expect(when({ maxReads: 0, onFinding: false, maxAgeMs: 31 * DAY })).toBeUndefined();
    expect(when({ maxReads: 10, onFinding: false }, { reads: 9 })).toBeUndefined();
    expect(when({ maxReads: 10, onFinding: false }, { reads: 10 })).toBe("reads");
    expect(when({ maxReads: 0, onFinding: true }, { findingAt: now })).toBe("finding");
    expect(when({ maxReads: 0, onFinding: false }, { findingAt: now })).toBeUndefined();
    const ending = { ...facts().secret, expireAt: now + HOUR };
    expect(when({ maxReads: 0, onFinding: false, beforeExpiryMs: 2 * HOUR }, { secret: ending })).toBe("expiry");
    expect(when({ maxReads: 0, onFinding: false, beforeExpiryMs: HOUR / 2 }, { secret: ending })).toBeUndefined();
    expect(when(undefined, { secret: { ...ending, current: 0 } })).toBe("first");
  });

  it("a value that lives shorter than its notice is replaced at half of its life, not without end", () => {
    const { now } = facts();
    const policy: RotationPolicy = { conditions: { maxReads: 0, onFinding: false, beforeExpiryMs: DAY } };
    expect(lookAfter(policy, { plannedAt: undefined, windowEndsAt: undefined }, now, now + HOUR)).toBe(now + HOUR / 2);
  });

  it("refuses what can't be meant", () => {
    const fields = (policy: RotationPolicy): string[] => policyViolations(policy, facts().now).map((violation) => violation.field);
    expect(fields(daily)).toEqual([]);
    expect(fields({ ...cron, jitterMs: HOUR + 1 })).toEqual(["jitter"]);
    expect(fields({ ...daily, jitterMs: 3 * HOUR })).toEqual(["jitter"]);
    expect(fields({ jitterMs: 1 })).toEqual(["jitter"]);
    expect(fields({ schedule: { kind: "interval", everyMs: 1 } })).toEqual(["interval"]);
    expect(fields({ schedule: { kind: "cron", expression: "0 3 30 2 *", timeZone: "UTC" } })).toEqual(["cron.expression"]);
    expect(fields({ schedule: { kind: "cron", expression: "@daily", timeZone: "UTC" } })).toEqual(["cron.expression"]);
    expect(fields({ schedule: { kind: "cron", expression: "0 3 * * *", timeZone: "Mars/Base" } })).toEqual(["cron.time_zone"]);
    expect(fields({ conditions: { maxReads: 0, onFinding: false, maxAgeMs: 1, beforeExpiryMs: 1 } })).toEqual([
      "conditions.max_age",
      "conditions.before_expiry",
    ]);
  });
});
