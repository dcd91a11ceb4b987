import { isReason, LeaseholdError } from "../base/errors.ts";
import { backoffMs } from "../base/retry.ts";

const OPEN_AFTER = 5;
/** Short, because a target that is back must not be refused to clients for long. */
const OPEN_BASE_MS = 500;
const OPEN_CAP_MS = 5000;
/** A target that answers so is there: it refuses this one thing. */
const ANSWERS: ReadonlySet<string | undefined> = new Set(["circuit_open", "busy", "deadline_passed"]);

/** One target's circuit breaker: after five failures in a row to reach it nobody waits for it for a while (0.5 to 5 s); then the next one tries for all. */
export class Breaker {
  #failures = 0;
  #opened = 0;
  #openUntil = 0;

  /** Throws TARGET_UNAVAILABLE `circuit_open` while open. Changes nothing: for who must still wait for his turn. */
  look(): void {
    if (this.#failures < OPEN_AFTER) return;
    const left = this.#openUntil - performance.now();
    if (left > 0) {
      throw new LeaseholdError("TARGET_UNAVAILABLE", "the target's circuit is open", { metadata: { problem: "circuit_open" }, retryAfterMs: Math.ceil(left) });
    }
  }

  /** Throws as `look`. Who is let through after a pause closes the door behind him, the others wait for what he finds: so he must try the target now. */
  check(): void {
    this.look();
    if (this.#failures >= OPEN_AFTER) this.#open();
  }

  succeeded(): void {
    this.#failures = 0;
    this.#opened = 0;
  }

  /** Only what says that the target can't be reached counts; any other answer of it is a sign of life. */
  failed(error: unknown): void {
    if (isReason(error, "TARGET_MISCONFIGURED")) return this.succeeded();
    if (!isReason(error, "TARGET_UNAVAILABLE") || ANSWERS.has(error.metadata["problem"])) return;
    // Open already: what was under way when it opened says nothing new.
    if (this.#failures < OPEN_AFTER && ++this.#failures === OPEN_AFTER) this.#open();
  }

  #open(): void {
    this.#openUntil = performance.now() + backoffMs(this.#opened++, OPEN_BASE_MS, OPEN_CAP_MS);
  }
}
