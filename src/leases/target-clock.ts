import type { Target, TargetIdentity } from "../engines/engine.ts";

const FRESH_MS = 30_000;

/** What a target said of itself, and its clock as it runs on since. */
export interface TargetTime {
  readonly identity: TargetIdentity;
  /** The target's clock now, Unix milliseconds: what it said, plus time by this process's monotonic clock, which nobody sets and which can only be behind (a suspended machine). */
  now(): number;
}

/** Which server a target is, and what time it is there. Asked again after half a minute. */
export class TargetClocks {
  readonly #known = new WeakMap<object, { readonly at: number; readonly time: Promise<TargetTime> }>();

  /** Throws TARGET_UNAVAILABLE. */
  ask(target: Target<unknown>): Promise<TargetTime> {
    const known = this.#known.get(target);
    const now = performance.now();
    if (known !== undefined && now - known.at < FRESH_MS) return known.time;
    const time = timeOf(target);
    this.#known.set(target, { at: now, time });
    time.catch(() => this.#known.delete(target));
    return time;
  }
}

async function timeOf(target: Target<unknown>): Promise<TargetTime> {
  const identity = await target.identify();
  const [said, at] = [Date.now() + identity.clockSkewMs, performance.now()];
  return { identity, now: () => said + performance.now() - at };
}
