import { isReason, LeaseholdError } from "../base/errors.ts";
import type { ActSpans } from "../base/act-spans.ts";
import { reached } from "../base/fault-point.ts";
import type { Log } from "../base/log.ts";
import type { Counter } from "../base/metrics.ts";
import { backoffMs } from "../base/retry.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { DueRotation } from "../model/rotation.ts";
import type { Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import type { LedgerClock } from "../store/ledger-clock.ts";
import { type Held, iso, Moves } from "./moves.ts";
import { decide, type Plan } from "./policy.ts";
import { endsTheClaim, problemOf } from "./problem.ts";
import type { Rotators } from "./rotators.ts";
import type { RotationSettings } from "./settings.ts";
import { type StepDeps, type Stepped, Steps } from "./steps.ts";
import { OpenedValues } from "./values.ts";

export interface ActDeps {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly committer: Committer;
  readonly rotators: Rotators;
  readonly gate: StepDeps["gate"];
  readonly clock: LedgerClock;
  readonly settings: RotationSettings;
  readonly log: Log;
  readonly spans?: ActSpans | undefined;
  readonly succeeded: Counter;
  readonly failed: Counter;
  /** Its time moved: the schedule looks it up. */
  readonly changed: (uid: string) => Promise<void>;
}

/** Does what a due rotation waits for: begins it, or goes on with its steps as far as they go. The ledger's `turn` keeps two workers from both doing it. */
export class RotationActor {
  readonly #deps: ActDeps;
  readonly #moves: Moves;
  readonly #steps: Steps;
  readonly #stopping = new AbortController();

  constructor(deps: ActDeps) {
    this.#deps = deps;
    this.#moves = new Moves(deps.committer, deps.settings);
    this.#steps = new Steps({ ...deps, moves: this.#moves, stopping: this.#stopping.signal });
  }

  /** Steps under way are told to end; what they have not committed is done again by whoever claims it next. */
  stop(): void {
    this.#stopping.abort();
  }

  /** Never throws: what fails is due again. */
  async act(due: DueRotation): Promise<void> {
    const { log, changed } = this.#deps;
    let held = this.#hold(due);
    const first = held;
    try {
      for (let next: Stepped = held; next !== undefined;) {
        held = next;
        // oxlint-disable-next-line no-await-in-loop -- one step after the other
        next = held.rotation.state === "WAITING" ? await this.#look(held) : await this.#step(held);
      }
    } catch (error) {
      await this.#failed(held, error).catch((failure: Error) =>
        log.warn({ rotation: due.path, error: failure.message }, "a failed rotation waits for the store"),
      );
    }
    if (!held.hung && !first.hung) held.values.wipe();
    await changed(due.uid).catch(() => {});
  }

  /** An aborted one had a candidate that will not be CURRENT: it is taken back outside. Best effort; never rejects. */
  async discard(due: DueRotation): Promise<void> {
    const held = this.#hold(due);
    await this.#steps
      .discard(held)
      .catch((error: Error) => this.#deps.log.warn({ rotation: due.path, error: error.message }, "a candidate that was given up could not be taken back"));
    if (!held.hung) held.values.wipe();
  }

  #hold(due: DueRotation): Held {
    const { db, keyring, clock, settings } = this.#deps;
    // The claim's instant on this process's clock.
    const claimedAt = due.now - (clock.now() - Date.now());
    return { rotation: due, deadlineAt: Math.min(claimedAt, Date.now()) + settings.deadlineMs, values: new OpenedValues(db, keyring), hung: false };
  }

  async #look(held: Held): Promise<Stepped> {
    const { rotation } = held;
    if (rotation.secret.deleted) return this.#plan(held, undefined, rotation);
    const decision = decide(rotation.policy, rotation);
    if (decision.begin === undefined) return this.#plan(held, decision.lookAt, decision.plan);
    const { begin: cause } = decision;
    const begun = { state: "RUNNING", step: "CREATE", cause, baseVersion: rotation.secret.current, givenUp: [], pendingVersion: 0, failures: 0 } as const;
    const next = await this.#moves.keep(held, "rotation.begin", { cause }, begun, cause);
    await reached("rotate.begun");
    return typeof next === "string" ? undefined : next;
  }

  /** With its span. */
  async #step(held: Held): Promise<Stepped> {
    const { path, rotator, step, generation, attempts, cause, traceId } = held.rotation;
    const attributes = { "leasehold.path": path, "leasehold.rotator": rotator, "leasehold.generation": generation, "leasehold.attempt": attempts };
    const span = this.#deps.spans?.start(`rotation.${step?.toLowerCase() ?? "none"}`, attributes, { why: cause, traceId });
    try {
      const next = await this.#steps.step(held);
      span?.end();
      return next;
    } catch (error) {
      span?.end(problemOf(error));
      throw error;
    }
  }

  async #plan(held: Held, lookAt: number | undefined, plan: Plan): Promise<undefined> {
    await this.#moves.release(held, "rotation.plan", { due_at: iso(lookAt), planned_at: iso(plan.plannedAt), window_ends_at: iso(plan.windowEndsAt) });
    return undefined;
  }

  async #failed(held: Held, error: unknown): Promise<void> {
    const { settings, failed, log } = this.#deps;
    const { rotation } = held;
    if (endsTheClaim(error)) {
      log.warn({ rotation: rotation.path, reason: error.reason }, "a due rotation waits for the store");
      return;
    }
    failed.add();
    const problem = problemOf(error);
    if (!(error instanceof LeaseholdError)) log.error({ rotation: rotation.path, error: (error as Error).message }, "a rotator failed in a way it should not");
    log.warn({ rotation: rotation.path, step: rotation.step, attempts: rotation.attempts, problem }, "a step of a rotation failed; it is tried again");
    const counts =
      (rotation.step === "SET" || rotation.step === "TEST") && !isReason(error, "TARGET_UNAVAILABLE", "SEALED", "KMS_UNAVAILABLE", "SECRET_DELETED");
    const nextMs = backoffMs(rotation.attempts - 1 + 3 * rotation.givenUp.length, settings.backoffMs, settings.maxBackoffMs);
    // A look of a waiting one counts when it has failed. Of the candidates before, each had a failure at least.
    const tries = rotation.attempts + (rotation.state === "WAITING" ? 1 : 0) + rotation.givenUp.length;
    const stuck = tries >= settings.stuckAfter;
    if (counts && rotation.failures + 1 >= rotation.maxCandidateFailures) {
      await this.#steps.giveUp(held, "too many failures", nextMs, { problem, stuck });
      return;
    }
    await this.#moves.release(held, "rotation.fail", { problem, counts, stuck, next_ms: nextMs });
  }
}
