import { systemActor } from "../model/audit.ts";
import type { DueRotation } from "../model/rotation.ts";
import type { CommandKind, Committer, Outcome } from "../store/command.ts";
import type { RotationSettings } from "./settings.ts";
import type { OpenedValues } from "./values.ts";

/** A rotation in a worker's hands. */
export interface Held {
  readonly rotation: DueRotation;
  /** The outside must not be changed later than this. This process's clock, Unix milliseconds. */
  readonly deadlineAt: number;
  readonly values: OpenedValues;
  /** A rotator did not answer in time, and may still be using values. */
  hung: boolean;
}

/** The moves of a worker in the ledger, each by the turn that is held. */
export class Moves {
  readonly #committer: Committer;
  readonly #settings: RotationSettings;

  constructor(committer: Committer, settings: RotationSettings) {
    this.#committer = committer;
    this.#settings = settings;
  }

  /** Lets go of it. STALE: it is another worker's, or an operator has moved it. */
  release(held: Held, kind: CommandKind, more: Readonly<Record<string, unknown>>, cause = held.rotation.cause): Promise<Outcome> {
    const { path, uid, turn, traceId } = held.rotation;
    // Looking without beginning, and holding on, are no acts.
    const quiet = kind === "rotation.plan" || kind === "rotation.keep" ? { record: false as const } : {};
    return this.#committer.commit({ kind, path, actor: systemActor(kind, cause, traceId), args: { uid, turn, ...more }, ...quiet });
  }

  /** Moves it on and holds it for the next step, with new time. Answers the reason when it was refused. */
  async keep(held: Held, kind: CommandKind, more: Readonly<Record<string, unknown>>, change: Partial<DueRotation>, cause?: string): Promise<Held | string> {
    const { claimMs, deadlineMs } = this.#settings;
    // The row's time counts from when the database did it: not before this.
    const sentAt = Date.now();
    const outcome = await this.release(held, kind, { ...more, claim_ms: claimMs }, cause);
    if (!outcome.ok) return outcome.reason;
    const { turn, generation } = outcome.result as { readonly turn: number; readonly generation: number };
    return { ...held, deadlineAt: sentAt + deadlineMs, rotation: { ...held.rotation, attempts: 1, ...change, turn, generation } };
  }
}

/** For the ledger; null: none. */
export function iso(ms: number | undefined): string | null {
  return ms === undefined ? null : new Date(ms).toISOString();
}
