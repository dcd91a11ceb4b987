import { LeaseholdError } from "../base/errors.ts";

/** Whether this process takes calls at all, and how many it has. */
export class Admission {
  readonly #maxCalls: number;
  readonly #maxStreams: number;
  calls = 0;
  streams = 0;
  /** Set by the app: the keyring can't be opened. */
  sealed = false;
  /** Set once, by the drain. */
  draining = false;

  constructor(maxCalls: number, maxStreams: number) {
    this.#maxCalls = maxCalls;
    this.#maxStreams = maxStreams;
  }

  /** Throws DRAINING, SEALED or OVERLOADED. The call has been counted already. */
  check(): void {
    if (this.draining) throw new LeaseholdError("DRAINING");
    if (this.sealed) throw new LeaseholdError("SEALED");
    if (this.calls > this.#maxCalls || this.streams > this.#maxStreams) throw new LeaseholdError("OVERLOADED");
  }
}
