import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { OpenTargets } from "../catalog/open-targets.ts";
import type { StaticLogin } from "../engines/static-login.ts";
import type { Catalog } from "../catalog/catalog.ts";
import type { Capability } from "../model/capability.ts";
import type { SecretData } from "../model/secret.ts";

/**
 * What rotation asks of a kind of thing whose secret can be changed. A rotator is one folder beside this file plus one line in `registry.ts` (and its configuration as a `oneof` field in
 * `rotation_service.proto`, with its mapping in `rpc/services/rotator-messages.ts`).
 *
 * A rotator holds no truth. The ledger has committed what a step works with before the step is called: the candidate lies sealed as the secret's PENDING version before `set`, and CURRENT has moved to it before
 * `finish`. Any step can be called again: after a crash, by another replica, or because its answer was lost. So each is idempotent for the same `candidateId`, and may meet its own earlier effect.
 *
 * Order: `create` → (commit PENDING) → `set` → `test` → (commit CURRENT) → once every older deadline has passed, `test` again → `finish`. From the second try on, `test` is asked before `set`: a candidate that works
 * already was set by a try whose answer was lost, and is not set again (lesson 26).
 *
 * Errors: TARGET_UNAVAILABLE says that nothing is known (it is tried again with backoff and never counts against the candidate); TARGET_MISCONFIGURED that the outside has answered no (metadata `problem`: a constant
 * word, shown to operators). Anything but TARGET_UNAVAILABLE counts; after `max_candidate_failures` of them the candidate is given up and another one made (lesson 28). No secret in a message or metadata.
 */
export interface RotatorDefinition<Config = unknown> {
  /** Name of its `oneof` field: `postgres_single_user`. */
  readonly name: string;
  readonly abilities: RotatorAbilities;
  /** Field violations of a configuration that came from a manifest; empty when it is good. No I/O. */
  check(config: Config): readonly Violation[];
  /** Name of the target it works on, if it does on one of the catalog's: at most a few steps at a time run there, and none while it is in quarantine. */
  target?(config: Config): string | undefined;
  /** The target's logins whose passwords it sets: no other rotation may. Absent: none. */
  logins?(config: Config): readonly StaticLogin[];
  /** What whoever puts such a rotation must be allowed besides the rotation itself: `operate` on the target whose login is used, `read` on a secret that is used. (Else he could do with the broker's rights what he can't do with his own.) @param path of the secret. */
  needs(config: Config, path: string): readonly Need[];
  /** No I/O before the first step. One for the process. */
  open(host: RotatorHost): Rotator<Config>;
}

export interface RotatorAbilities {
  /** `create` asks the outside, which makes the candidate. It is asked again with the same `candidateId` when its answer was lost, and must then answer the same candidate or take the first one back. */
  readonly candidateFromOutside: boolean;
  /** The value before goes on working while the new one is CURRENT (two alternating users). Shown to operators. */
  readonly overlap: boolean;
  /** The outside itself refuses a `set` that comes after its deadline or with an older generation (attack.md finding 18). Where it can't, a late writer is found by the test after the deadline, and CURRENT is set again. */
  readonly fencing: boolean;
  /** There need be no value before the first one: the rotation can be put before the secret. */
  readonly startsFromNothing: boolean;
  /** False where there is no outside: `set` and `test` have nothing to do. */
  readonly touchesOutside: boolean;
}

export interface Rotator<Config = unknown> {
  /** Makes the candidate: all fields of the secret, not only those that change. Without `candidateFromOutside` it only computes: a crash before the commit leaves nothing behind. Throws TARGET_MISCONFIGURED when the current value lacks what it needs. */
  create(step: CreateStep<Config>): Promise<Candidate>;
  /** Makes the outside accept the candidate. Must check `generation` and `deadlineAt` on the outside, in the same transaction as the change, where there is a way to. */
  set(step: CandidateStep<Config>): Promise<void>;
  /** Uses the candidate as an application would: `refused` when the outside answered that it does not accept it. Changes nothing. */
  test(step: CandidateStep<Config>): Promise<"works" | "refused">;
  /** CURRENT is the candidate, tested after all older deadlines: takes away what is not needed any more. `previous` is what was CURRENT before. Absent: nothing to do. */
  finish?(step: CandidateStep<Config>): Promise<void>;
  /**
   * A candidate was given up (aborted, or n failures) and will not become CURRENT: takes it back outside, if it is there, so that CURRENT works. Best effort, tried once; where the outside makes candidates and CURRENT does not work
   * after an abort, until it does. `candidate` is empty when the answer of `create` was lost: the one named by `candidateId`. Absent: nothing to do.
   */
  discard?(step: CandidateStep<Config>): Promise<void>;
  close?(): Promise<void>;
}

export interface Candidate {
  readonly data: SecretData;
  /** When the value ends by itself, if the outside said so: becomes the version's expire_time. Unix milliseconds. */
  readonly expireAt?: number | undefined;
}

export interface CreateStep<Config> {
  /** Secret path. */
  readonly path: string;
  /** Stable id of this rotation: what a lock or a fence on the outside is named by. */
  readonly rotationUid: string;
  readonly config: Config;
  /** The fence: grows with every candidate, of this rotation and never smaller. An outside that has seen a higher one refuses. */
  readonly generation: number;
  /** Idempotency key of this candidate, the same in every step and every try of it. */
  readonly candidateId: string;
  /** The outside must not be changed after this instant. By this process's clock, Unix milliseconds: a target that decides by its own clock is told `deadlineAt + clockSkewMs` (`Target.identify()`). */
  readonly deadlineAt: number;
  /** Aborts at `deadlineAt`, and when the process stops. */
  readonly signal: AbortSignal;
  /** W3C trace id, or empty. */
  readonly traceId: string;
  /** The value that is CURRENT; undefined only with `startsFromNothing`. In `finish`: the candidate itself. */
  readonly current: SecretData | undefined;
}

export interface CandidateStep<Config> extends CreateStep<Config> {
  /** Its version number in the secret; 0: it was never stored. */
  readonly version: number;
  readonly candidate: SecretData;
  /** What was CURRENT when the candidate was made; in `finish` the version now labelled PREVIOUS. Undefined when there was none. */
  readonly previous: SecretData | undefined;
  /** Candidates of this rotation that were given up since the last success, newest first: one of them may be what the outside accepts now. For who must log in with the old value to set the new one. */
  readonly givenUp: readonly SecretData[];
}

/** What a rotator may use of the broker. */
export interface RotatorHost {
  readonly clock: Clock;
  /** Id of this installation, part of the names of logins. */
  readonly instance: string;
  readonly catalog: Catalog;
  /** Connections to targets as the broker's own login (`open`), or as another (`openAs`, which the caller closes). */
  readonly targets: OpenTargets;
  /** CURRENT of another secret that the configuration names, for signing keys and client certificates. Throws SECRET_NOT_FOUND and the like. */
  secret(path: string): Promise<SecretData>;
  readonly log: Log;
}

export interface Need {
  readonly capability: Capability;
  readonly path: string;
}

export interface Violation {
  /** Proto field path below the configuration message, e.g. `fields[1].name`. */
  readonly field: string;
  readonly description: string;
}
