import { Cron } from "croner";
import type { CronRule } from "../model/rotation.ts";

/**
 * Times of the calendar, by croner. At a change of the clocks: a single time (`30 2 * * *`) that is skipped comes at the first minute after the gap, and one that is repeated comes once, the first time; what repeats within the
 * hour (`*` or a step as the hour) follows the clock that passes.
 */
function cronOf({ expression, timeZone }: Pick<CronRule, "expression" | "timeZone">): Cron {
  return new Cron(expression, { timezone: timeZone, mode: "5-part" });
}

/** The first planned time after `from`; undefined when there is none any more (the 30th of February). Unix milliseconds. */
export function nextOfCalendar(rule: Pick<CronRule, "expression" | "timeZone">, from: number): number | undefined {
  return cronOf(rule).nextRun(new Date(from))?.getTime();
}

/** What is wrong with an expression or a time zone; undefined when nothing is. */
export function calendarProblem(
  rule: Pick<CronRule, "expression" | "timeZone">,
  now: number,
): { readonly field: "expression" | "time_zone"; readonly description: string } | undefined {
  try {
    new Date(0).toLocaleString("en", { timeZone: rule.timeZone });
  } catch {
    return { field: "time_zone", description: "must be a name of the IANA database, such as Europe/Berlin" };
  }
  // croner takes more: nicknames, dates.
  const fields = { field: "expression", description: "must have five fields: minute, hour, day of month, month, day of week" } as const;
  if (rule.expression.split(/\s+/).length !== 5) return fields;
  try {
    if (nextOfCalendar(rule, now) === undefined) return { field: "expression", description: "never comes" };
  } catch {
    return fields;
  }
  return undefined;
}
