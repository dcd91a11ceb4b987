import { isReason, LeaseholdError } from "../base/errors.ts";
import { reached } from "../base/fault-point.ts";
import type { Log } from "../base/log.ts";
import type { Counter } from "../base/metrics.ts";
import { backoffMs } from "../base/retry.ts";
import type { SecretData } from "../model/secret.ts";
import { fitsSecret, wipe } from "../secrets/payload.ts";
import { type Held, iso, type Moves } from "./moves.ts";
import { lookAfter, planNext } from "./policy.ts";
import { endsTheClaim, problemOf } from "./problem.ts";
import type { CandidateStep, CreateStep, Rotator, RotatorAbilities } from "./rotator.ts";
import type { Rotators } from "./rotators.ts";
import type { RotationSettings } from "./settings.ts";

export interface StepDeps {
  readonly moves: Moves;
  readonly rotators: Rotators;
  /** Throws TARGET_MISCONFIGURED `quarantined` and the like for a target on which nothing automatic may happen. */
  readonly gate: (target: string) => Promise<void>;
  readonly settings: RotationSettings;
  readonly stopping: AbortSignal;
  readonly succeeded: Counter;
  readonly log: Log;
}

/** Still held and to go on with, or let go of. */
export type Stepped = Held | undefined;

/** The four steps, and RESTORE. Each ends with a move in the ledger, or throws, and is then done again from its beginning. */
export class Steps {
  readonly #deps: StepDeps;

  constructor(deps: StepDeps) {
    this.#deps = deps;
  }

  async step(held: Held): Promise<Stepped> {
    const { rotation } = held;
    if (rotation.secret.deleted) throw new LeaseholdError("SECRET_DELETED");
    await this.#enter(rotation.target);
    switch (rotation.step) {
      case "CREATE":
        return this.#create(held);
      case "SET":
        return this.#set(held);
      case "TEST":
        return this.#test(held);
      case "FINISH":
        return this.#finish(held);
      case "RESTORE":
        return this.#restore(held);
      case undefined:
        return undefined;
    }
  }

  /**
   * A new candidate follows, after this one is taken back outside, if it can be: later it would take back what the new one has set. @param failed what it failed by, when that is why. @param made what the outside may have made and
   * the ledger has not stored: empty when the answer that held it was lost.
   */
  async giveUp(
    held: Held,
    cause: string,
    nextMs: number,
    failed: { readonly problem?: string; readonly stuck?: boolean } = {},
    made?: SecretData,
  ): Promise<undefined> {
    const nothingMade = held.rotation.pendingVersion === 0 && made === undefined;
    const still = nothingMade || this.#rotator(held).discard === undefined ? held : await this.#takeBack(held, made);
    if (still !== undefined) await this.#deps.moves.release(still, "rotation.give_up", { next_ms: nextMs, ...failed }, cause);
    return undefined;
  }

  /** Tried once, while nobody else has the rotation: undefined when somebody has. */
  async #takeBack(held: Held, made: SecretData | undefined): Promise<Held | undefined> {
    const kept = await this.#deps.moves.keep(held, "rotation.keep", {}, {});
    if (typeof kept === "string") return undefined;
    try {
      await this.discard(kept, made);
    } catch (error) {
      if (endsTheClaim(error)) throw error;
      this.#deps.log.warn({ rotation: held.rotation.path, error: (error as Error).message }, "a candidate that was given up could not be taken back");
    } finally {
      held.hung ||= kept.hung;
    }
    return kept;
  }

  async discard(held: Held, made?: SecretData): Promise<void> {
    const rotator = this.#rotator(held);
    if (rotator.discard === undefined) return;
    await this.#enter(held.rotation.target);
    const step = made === undefined ? await this.#candidate(held) : await this.#unstored(held, made);
    if (step !== undefined) await this.#run(held, step, (given) => rotator.discard!(given));
  }

  /** Throws TARGET_UNAVAILABLE where nothing automatic may happen: that is not the candidate's fault. */
  async #enter(target: string): Promise<void> {
    if (target === "") return;
    try {
      await this.#deps.gate(target);
    } catch (error) {
      if (!isReason(error, "TARGET_MISCONFIGURED", "TARGET_NOT_FOUND")) throw error;
      throw new LeaseholdError("TARGET_UNAVAILABLE", error.message, { metadata: { problem: error.metadata["problem"] ?? "target_not_found" }, cause: error });
    }
  }

  async #create(held: Held): Promise<Stepped> {
    const { rotation, values } = held;
    const { startsFromNothing, candidateFromOutside } = this.#abilities(held);
    if (rotation.secret.current !== rotation.baseVersion) {
      const made = candidateFromOutside && rotation.attempts > 1 ? (new Map() as SecretData) : undefined;
      return this.giveUp(held, "CURRENT was changed by hand", 0, {}, made);
    }
    const current = await values.of(rotation.secretUid, rotation.secret.current);
    if (current === undefined && !startsFromNothing) throw misconfigured("no_current_value");
    const { data, expireAt } = await this.#run(held, createStep(held, current), (step) => this.#rotator(held).create(step));
    if (!fitsSecret(data)) throw misconfigured("candidate_too_large");
    try {
      await reached("rotate.created");
      const version = rotation.secret.latest + 1;
      const next = await this.#deps.moves.keep(
        held,
        "rotation.stage",
        { version, ...values.seal(rotation.secretUid, version, data), expire_at: iso(expireAt) },
        { step: "SET", pendingVersion: version, failures: 0, secret: { ...rotation.secret, latest: version } },
      );
      // Somebody wrote the secret meanwhile: from the beginning, with what is CURRENT now.
      if (next === "VERSION_MISMATCH") return await this.giveUp(held, "the secret was written meanwhile", 0, {}, candidateFromOutside ? data : undefined);
      if (next === "SECRET_DELETED") throw new LeaseholdError("SECRET_DELETED");
      await reached("rotate.staged");
      return typeof next === "string" ? undefined : next;
    } finally {
      if (!held.hung) wipeNew(data, current);
    }
  }

  /** From the second try on it is tested first: what works already was set by a try whose answer was lost (lesson 26). */
  async #set(held: Held): Promise<Stepped> {
    const step = await this.#successor(held);
    if (step === undefined) return undefined;
    const rotator = this.#rotator(held);
    const known = held.rotation.attempts > 1 && (await this.#run(held, step, (given) => rotator.test(given))) === "works";
    if (!known) await this.#run(held, step, (given) => rotator.set(given));
    await reached("rotate.set");
    const next = await this.#deps.moves.keep(held, "rotation.was_set", {}, { step: "TEST" }, known ? "found to be set" : undefined);
    return typeof next === "string" ? undefined : next;
  }

  async #test(held: Held): Promise<Stepped> {
    const { moves, succeeded } = this.#deps;
    const { rotation } = held;
    const step = await this.#successor(held);
    if (step === undefined) return undefined;
    if ((await this.#run(held, step, (given) => this.#rotator(held).test(given))) === "refused") throw misconfigured("candidate_refused");
    await reached("rotate.tested");
    const waits = this.#abilities(held).touchesOutside;
    const plan = planNext(rotation.policy, rotation.now);
    const outcome = await moves.release(held, "rotation.promote", { planned_at: iso(plan.plannedAt), window_ends_at: iso(plan.windowEndsAt), waits });
    if (outcome.ok) succeeded.add();
    await reached("rotate.promoted");
    if (!outcome.ok && outcome.reason === "VERSION_MISMATCH") return this.giveUp(held, "CURRENT was changed by hand", 0);
    if (!outcome.ok && outcome.reason === "SECRET_DELETED") throw new LeaseholdError("SECRET_DELETED");
    return undefined;
  }

  /** No try begun before can take effect any more. A late one may have: then what is CURRENT is set once more, and it is tested again after that (finding 18). */
  async #finish(held: Held): Promise<Stepped> {
    const { moves, settings } = this.#deps;
    const { rotation } = held;
    const plan = { plannedAt: rotation.plannedAt, windowEndsAt: rotation.windowEndsAt };
    const dueAt = lookAfter(rotation.policy, plan, rotation.secret.createdAt ?? rotation.now, rotation.secret.expireAt);
    // Written by hand since: that value is not ours to test.
    const step = rotation.secret.current === rotation.pendingVersion ? await this.#candidate(held) : undefined;
    if (step !== undefined) {
      const rotator = this.#rotator(held);
      if ((await this.#run(held, step, (given) => rotator.test(given))) === "refused") return this.#setAgain(held, "late_writer", settings.claimMs);
      await this.#run(held, step, async (given) => rotator.finish?.(given));
    }
    await reached("rotate.cleaned");
    await moves.release(held, "rotation.finish", { due_at: iso(dueAt) });
    return undefined;
  }

  async #restore(held: Held): Promise<Stepped> {
    const current = await this.#currentStep(held);
    const works = current !== undefined && (await this.#run(held, current, (given) => this.#rotator(held).test(given))) === "works";
    if (current !== undefined && !works) return this.#setAgain(held, "restoring", 0);
    await this.#deps.moves.release(held, "rotation.finish", {}, "aborted");
    return undefined;
  }

  /** Sets what is CURRENT, and lets go until it can be tested again, after `leastMs` or more. */
  async #setAgain(held: Held, word: string, leastMs: number): Promise<undefined> {
    const { moves, settings } = this.#deps;
    const kept = await moves.keep(held, "rotation.keep", {}, {});
    if (typeof kept === "string") return undefined;
    const step = await this.#currentStep(kept);
    if (step === undefined) return undefined;
    let problem = `TARGET_MISCONFIGURED: ${word}`;
    try {
      await this.#makeCurrent(kept, step);
    } catch (error) {
      if (endsTheClaim(error)) throw error;
      problem = problemOf(error);
    } finally {
      held.hung ||= kept.hung;
    }
    const { attempts } = held.rotation;
    const nextMs = Math.max(leastMs, backoffMs(attempts - 1, settings.backoffMs, settings.maxBackoffMs));
    await moves.release(kept, "rotation.fail", { problem, counts: false, stuck: attempts >= settings.stuckAfter, next_ms: nextMs });
    return undefined;
  }

  /** A value that the outside made can't be set there again: after an abort, the candidate that stands in its way is taken back. */
  async #makeCurrent(held: Held, step: CandidateStep<unknown>): Promise<void> {
    const rotator = this.#rotator(held);
    const [candidate] = step.givenUp;
    if (held.rotation.step === "RESTORE" && this.#abilities(held).candidateFromOutside && rotator.discard !== undefined && candidate !== undefined)
      await this.#run(held, { ...step, candidate }, (given) => rotator.discard!(given));
    else await this.#run(held, step, (given) => rotator.set(given));
  }

  /** The candidate, if CURRENT is still the one that it follows and it is still there; else it is given up. */
  async #successor(held: Held): Promise<CandidateStep<unknown> | undefined> {
    const { rotation } = held;
    if (rotation.secret.current !== rotation.baseVersion) return this.giveUp(held, "CURRENT was changed by hand", 0);
    const step = await this.#candidate(held);
    return step ?? this.giveUp(held, "the candidate is gone", 0);
  }

  async #candidate(held: Held): Promise<CandidateStep<unknown> | undefined> {
    const { rotation, values } = held;
    const { secretUid, pendingVersion: version } = rotation;
    const candidate = await values.of(secretUid, version);
    if (candidate === undefined) return undefined;
    const current = await values.of(secretUid, rotation.secret.current);
    const previous = await values.of(secretUid, rotation.baseVersion);
    return { ...createStep(held, current), version, candidate, previous, givenUp: await this.#givenUp(held) };
  }

  async #unstored(held: Held, candidate: SecretData): Promise<CandidateStep<unknown>> {
    const { rotation, values } = held;
    const current = await values.of(rotation.secretUid, rotation.secret.current);
    return { ...createStep(held, current), version: 0, candidate, previous: current, givenUp: [] };
  }

  /** What is CURRENT, as if it were the candidate. */
  async #currentStep(held: Held): Promise<CandidateStep<unknown> | undefined> {
    const { rotation, values } = held;
    const current = await values.of(rotation.secretUid, rotation.secret.current);
    if (current === undefined) return undefined;
    return { ...createStep(held, current), version: rotation.secret.current, candidate: current, previous: current, givenUp: await this.#givenUp(held) };
  }

  async #givenUp({ rotation, values }: Held): Promise<SecretData[]> {
    const opened = await Promise.all(rotation.givenUp.map((version) => values.of(rotation.secretUid, version)));
    return opened.filter((data) => data !== undefined);
  }

  #abilities(held: Held): RotatorAbilities {
    return this.#deps.rotators.definition(held.rotation.rotator).abilities;
  }

  #rotator(held: Held): Rotator {
    return this.#deps.rotators.open(held.rotation.rotator);
  }

  /** Throws TARGET_UNAVAILABLE `deadline_passed` when it takes too long; whatever it then still does is what the test at the end is for. */
  async #run<S extends CreateStep<unknown>, T>(held: Held, step: S, call: (step: S) => Promise<T>): Promise<T> {
    const left = Math.floor(held.deadlineAt - Date.now());
    if (left <= 0) throw late();
    const signal = AbortSignal.any([AbortSignal.timeout(left), this.#deps.stopping]);
    const running = call({ ...step, signal });
    const gone = Promise.withResolvers<never>();
    const end = (): void => gone.reject(this.#deps.stopping.aborted ? new LeaseholdError("DRAINING") : late());
    signal.addEventListener("abort", end, { once: true });
    held.hung = true;
    running.catch(() => {});
    try {
      const answer = await Promise.race([running, gone.promise]);
      held.hung = false;
      return answer;
    } catch (error) {
      held.hung = signal.aborted;
      throw error;
    } finally {
      signal.removeEventListener("abort", end);
    }
  }
}

function createStep({ rotation, deadlineAt }: Held, current: SecretData | undefined): CreateStep<unknown> {
  const { path, uid, config, generation, traceId } = rotation;
  return { path, rotationUid: uid, config, generation, candidateId: `${uid}:${generation}`, deadlineAt, signal: NEVER, traceId, current };
}

const NEVER = new AbortController().signal;

/** What was made is sealed; what came from CURRENT is wiped with it. */
function wipeNew(data: SecretData, current: SecretData | undefined): void {
  const old = new Set([...(current?.values() ?? [])].map(({ value }) => value));
  wipe(new Map([...data].filter(([, { value }]) => !old.has(value))));
}

function misconfigured(problem: string): LeaseholdError {
  return new LeaseholdError("TARGET_MISCONFIGURED", problem, { metadata: { problem } });
}

function late(): LeaseholdError {
  return new LeaseholdError("TARGET_UNAVAILABLE", "no answer in time", { metadata: { problem: "deadline_passed" } });
}
