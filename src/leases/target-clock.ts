import type { Target, TargetIdentity } from "../engines/engine.ts";

const FRESH_MS = 30_000;

/** What a target last said of itself: which server it is, and how far its clock is from ours. Asked again after half a minute. */
export class TargetClocks {
  readonly #known = new WeakMap<object, { readonly at: number; readonly identity: Promise<TargetIdentity> }>();

  /** Throws TARGET_UNAVAILABLE. */
  identify(target: Target<unknown>): Promise<TargetIdentity> {
    const known = this.#known.get(target);
    const now = performance.now();
    if (known !== undefined && now - known.at < FRESH_MS) return known.identity;
    const identity = target.identify();
    this.#known.set(target, { at: now, identity });
    identity.catch(() => this.#known.delete(target));
    return identity;
  }
}
