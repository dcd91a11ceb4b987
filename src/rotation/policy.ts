import type { DueRotation, RotationPolicy } from "../model/rotation.ts";
import { calendarProblem, nextOfCalendar } from "./calendar.ts";
import type { Violation } from "./rotator.ts";

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const MAX_MS = 3660 * DAY;

/** Unix milliseconds, by the database's clock. */
export interface Plan {
  /** Undefined: none by itself. */
  readonly plannedAt: number | undefined;
  /** Until when it may begin; undefined: as late as it may be. */
  readonly windowEndsAt: number | undefined;
}

/** The next planned time: an interval counts from `from` (the last rotation, or when it was put), the calendar goes on after it. Put off by the jitter once, here, so that it stays what was announced. */
export function planNext({ schedule, jitterMs = 0 }: RotationPolicy, from: number, random: () => number = Math.random): Plan {
  const jitter = Math.floor(random() * jitterMs);
  if (schedule === undefined) return { plannedAt: undefined, windowEndsAt: undefined };
  if (schedule.kind === "interval") return { plannedAt: from + schedule.everyMs + jitter, windowEndsAt: undefined };
  const base = nextOfCalendar(schedule, from);
  if (base === undefined) return { plannedAt: undefined, windowEndsAt: undefined };
  return { plannedAt: base + jitter, windowEndsAt: schedule.windowMs === undefined ? undefined : base + schedule.windowMs };
}

export type Decision = { readonly begin: string } | { readonly begin?: undefined; readonly plan: Plan; readonly lookAt: number | undefined };

export type Facts = Pick<DueRotation, "plannedAt" | "windowEndsAt" | "reads" | "findingAt" | "secret" | "now">;

/** What a waiting rotation waits for: it begins, with the cause, or is looked at again at `lookAt`. A planned time that is missing is made; it never makes a rotation begin (lesson 24). */
export function decide(policy: RotationPolicy, facts: Facts, random: () => number = Math.random): Decision {
  const { now, secret } = facts;
  if (secret.current === 0) return { begin: "first" };
  let plan: Plan = { plannedAt: facts.plannedAt, windowEndsAt: facts.windowEndsAt };
  if (plan.plannedAt === undefined) plan = planNext(policy, now, random);
  else if (plan.plannedAt <= now) {
    const missed = plan.windowEndsAt !== undefined && now > plan.windowEndsAt;
    if (!missed && policy.schedule !== undefined) return { begin: policy.schedule.kind };
    plan = planNext(policy, now, random);
  }
  const { conditions } = policy;
  if (conditions !== undefined) {
    if (conditions.maxReads > 0 && facts.reads >= conditions.maxReads) return { begin: "reads" };
    if (conditions.onFinding && facts.findingAt !== undefined) return { begin: "finding" };
  }
  const byAge = conditions?.maxAgeMs === undefined || secret.createdAt === undefined ? undefined : secret.createdAt + conditions.maxAgeMs;
  if (byAge !== undefined && byAge <= now) return { begin: "age" };
  const byExpiry = expiryLook(conditions?.beforeExpiryMs, secret.createdAt, secret.expireAt);
  if (byExpiry !== undefined && byExpiry <= now) return { begin: "expiry" };
  return { plan, lookAt: soonest(plan.plannedAt, byAge, byExpiry) };
}

/** When a value that ends is replaced: so long before, but not before half of its life, or one that lives shorter than that would be replaced without end. */
function expiryLook(beforeMs: number | undefined, createdAt: number | undefined, expireAt: number | undefined): number | undefined {
  if (beforeMs === undefined || expireAt === undefined || createdAt === undefined) return undefined;
  return Math.max(expireAt - beforeMs, createdAt + (expireAt - createdAt) / 2);
}

/** When to look at it after a rotation that ended now, with CURRENT made now. */
export function lookAfter(policy: RotationPolicy, plan: Plan, now: number, expireAt: number | undefined): number | undefined {
  const { maxAgeMs, beforeExpiryMs } = policy.conditions ?? {};
  return soonest(plan.plannedAt, maxAgeMs === undefined ? undefined : now + maxAgeMs, expiryLook(beforeExpiryMs, now, expireAt));
}

function soonest(...times: readonly (number | undefined)[]): number | undefined {
  const known = times.filter((time) => time !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}

/** Whether a new CURRENT changes when it is due. */
export function followsCurrent({ conditions }: RotationPolicy): boolean {
  return conditions?.maxAgeMs !== undefined || conditions?.beforeExpiryMs !== undefined;
}

/** Fields as in the proto, below `policy`. @param now for "never comes". */
export function policyViolations({ schedule, jitterMs = 0, conditions }: RotationPolicy, now: number): Violation[] {
  const found: Violation[] = [];
  const length = (field: string, ms: number | undefined): void => {
    if (ms !== undefined && (ms < MINUTE || ms > MAX_MS)) found.push({ field, description: "must be from 1 min to 10 years" });
  };
  let mostJitter = 0;
  if (schedule?.kind === "interval") {
    length("interval", schedule.everyMs);
    mostJitter = Math.min(DAY, schedule.everyMs / 10);
  } else if (schedule !== undefined) {
    const problem = calendarProblem(schedule, now);
    if (problem !== undefined) found.push({ field: `cron.${problem.field}`, description: problem.description });
    length("cron.window", schedule.windowMs);
    mostJitter = schedule.windowMs ?? DAY;
  }
  if (jitterMs > mostJitter) found.push({ field: "jitter", description: "must be at most the window, or 24 h and a tenth of the interval" });
  length("conditions.max_age", conditions?.maxAgeMs);
  length("conditions.before_expiry", conditions?.beforeExpiryMs);
  return found;
}
