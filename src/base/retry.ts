/** Exponential backoff in milliseconds, capped, with full jitter above half: between cap/2 and cap of `base * 2^attempt`. `attempt` counts from 0. */
export function backoffMs(attempt: number, baseMs: number, capMs: number, random: () => number = Math.random): number {
  const full = Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));
  return Math.round(full / 2 + (full / 2) * random());
}
