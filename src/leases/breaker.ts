import { isReason, LeaseholdError } from "../base/errors.ts";
import { backoffMs } from "../base/retry.ts";

const OPEN_AFTER = 5;
const OPEN_BASE_MS = 2000;
const OPEN_CAP_MS = 60_000;

/** One target's circuit breaker: after five failures to reach it, nobody waits for it for a while; then one try decides. */
export class Breaker {
  #failures = 0;
  #openUntil = 0;

  /** Throws TARGET_UNAVAILABLE while open. */
  check(): void {
    const left = this.#openUntil - performance.now();
    if (left > 0) throw new LeaseholdError("TARGET_UNAVAILABLE", "the target's circuit is open", { metadata: { problem: "circuit_open" }, retryAfterMs: Math.ceil(left) });
  }

  succeeded(): void {
    this.#failures = 0;
    this.#openUntil = 0;
  }

  /** Only what says that the target can't be reached counts. */
  failed(error: unknown): void {
    if (!isReason(error, "TARGET_UNAVAILABLE") || error.metadata["problem"] === "circuit_open") return;
    this.#failures++;
    if (this.#failures >= OPEN_AFTER) this.#openUntil = performance.now() + backoffMs(this.#failures - OPEN_AFTER, OPEN_BASE_MS, OPEN_CAP_MS);
  }
}

/** This replica's breakers, one a target, so that a sick target starves nobody. */
export class Breakers {
  readonly #all = new Map<string, Breaker>();

  of(targetUid: string): Breaker {
    const known = this.#all.get(targetUid);
    if (known !== undefined) return known;
    const made = new Breaker();
    this.#all.set(targetUid, made);
    return made;
  }
}
