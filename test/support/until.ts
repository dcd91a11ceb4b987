import { setTimeout as sleep } from "node:timers/promises";

/** Waits until `check` answers something other than undefined or false; says what was awaited when it never does. */
export async function until<T>(what: string, check: () => T | Promise<T>, limitMs = 30_000): Promise<Exclude<T, undefined | false>> {
  const giveUpAt = performance.now() + limitMs;
  for (;;) {
    const value = await check();
    if (value !== undefined && value !== false) return value as Exclude<T, undefined | false>;
    if (performance.now() > giveUpAt) throw new Error(`waited ${limitMs} ms in vain: ${what}`);
    await sleep(10);
  }
}
