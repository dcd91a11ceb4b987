import type { Verdict } from "../sink.ts";

/** They say that something is wrong with the receiver, its address or its credentials, or that it is too early: not that these events are. */
const NOT_OF_THE_EVENTS: ReadonlySet<number> = new Set([401, 403, 404, 405, 407, 408, 410, 421, 423, 425, 426, 429]);
const MAX_RETRY_AFTER_MS = 3_600_000;

/** What a status code means. A redirect is not followed: it would lead the events, and their signature, where nobody said they should go. */
export function verdictOf(status: number, retryAfter: string | undefined, now: number): Verdict {
  if (status >= 200 && status < 300) return { kind: "accepted" };
  const problem = `HTTP ${status}`;
  if (status >= 400 && status < 500 && !NOT_OF_THE_EVENTS.has(status)) return { kind: "refused", problem };
  return { kind: "unavailable", problem, retryAfterMs: retryAfterOf(retryAfter, now) };
}

/** Seconds or a date (RFC 9110, 10.2.3); at most an hour. */
function retryAfterOf(text: string | undefined, now: number): number | undefined {
  if (text === undefined) return undefined;
  // Date.parse makes a date of nearly anything.
  const ms = /^[0-9]{1,9}$/.test(text) ? Number(text) * 1000 : /^[A-Z][a-z]{2}, .* GMT$/.test(text) ? Date.parse(text) - now : Number.NaN;
  return Number.isFinite(ms) && ms > 0 ? Math.min(ms, MAX_RETRY_AFTER_MS) : undefined;
}
