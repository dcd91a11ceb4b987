import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { LeaseholdError } from "../base/errors.ts";
import type { Actor } from "../model/audit.ts";
import type { RotationDocument, RotationRecord } from "../model/rotation.ts";
import type { Command, CommandKind, Committer, Outcome } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { findRotation, ledgerNow } from "../store/rotations.ts";
import { iso } from "./moves.ts";
import { followsCurrent, planNext, policyViolations } from "./policy.ts";
import type { Need } from "./rotator.ts";
import type { Rotators } from "./rotators.ts";

export interface RotationInput extends RotationDocument {
  /** Of the secret. */
  readonly path: string;
  readonly rotator: string;
}

export interface RotationWrite {
  readonly actor: Actor;
  readonly request: Command["request"];
}

export interface Written {
  readonly revision: number;
  /** False for a replay of a known request_id. */
  readonly recorded: boolean;
  readonly result: Readonly<Record<string, unknown>>;
}

const MAX_TRIES = 20;

/** What operators ask of rotations. Nothing here waits for a step: the schedule does them. */
export class RotationWriter {
  readonly #db: Db;
  readonly #committer: Committer;
  readonly #rotators: Rotators;
  readonly #changed: (uid: string) => Promise<void>;

  /** @param changed its time moved: the schedule looks it up. */
  constructor(db: Db, committer: Committer, rotators: Rotators, changed: (uid: string) => Promise<void>) {
    this.#db = db;
    this.#committer = committer;
    this.#rotators = rotators;
    this.#changed = changed;
  }

  /** What whoever puts this must be allowed besides. Throws REQUEST_INVALID. */
  needs(input: RotationInput): readonly Need[] {
    const definition = this.#rotators.definition(input.rotator);
    const violations = definition.check(input.config).map(({ field, description }) => ({ field: `rotation.${input.rotator}.${field}`, description }));
    if (violations.length > 0) throw new LeaseholdError("REQUEST_INVALID", "rotation", { violations });
    return definition.needs(input.config, input.path);
  }

  /**
   * Writes how and when, never the value (lesson 30). The planned time stays unless the policy changed. Throws REQUEST_INVALID, SECRET_NOT_FOUND (a rotator that needs a value to begin from), SECRET_DELETED, VERSION_MISMATCH,
   * ROTATION_IN_PROGRESS (the rotator's configuration changed while a candidate is, or may be, what the outside accepts),
   * IN_USE (a login that is another rotation's), CONFLICT.
   */
  async put(input: RotationInput, etag: string, rotateNow: boolean, dryRun: boolean, write: RotationWrite): Promise<Written> {
    this.needs(input);
    const definition = this.#rotators.definition(input.rotator);
    const now = await ledgerNow(this.#db);
    const violations = policyViolations(input.policy, now).map(({ field, description }) => ({ field: `rotation.policy.${field}`, description }));
    if (violations.length > 0) throw new LeaseholdError("REQUEST_INVALID", "rotation", { violations });
    // As it is stored: what is undefined is not there.
    const document = JSON.parse(
      JSON.stringify({ policy: input.policy, maxCandidateFailures: input.maxCandidateFailures, config: input.config }),
    ) as RotationDocument;
    for (let i = 0; i < MAX_TRIES; i++) {
      // oxlint-disable-next-line no-await-in-loop -- another writer was faster: decided anew on what he wrote
      const known = await findRotation(this.#db, input.path);
      const planned = known === undefined || !isDeepStrictEqual(known.policy, document.policy);
      const plan = planNext(document.policy, known?.lastAt ?? now);
      // An interval that is shorter than what has passed since: it is over at once, not in the past.
      const plannedAt = plan.plannedAt === undefined ? undefined : Math.max(plan.plannedAt, now);
      const args = {
        uid: randomUUID(),
        secret_uid: randomUUID(),
        rotator: input.rotator,
        target: definition.target?.(input.config) ?? "",
        logins: definition.logins?.(input.config).map(({ name }) => name) ?? [],
        document: JSON.stringify(document),
        edition: known?.edition ?? 0,
        etag,
        planned,
        planned_at: iso(plannedAt),
        window_ends_at: iso(plan.windowEndsAt),
        max_reads: document.policy.conditions?.maxReads ?? 0,
        on_finding: document.policy.conditions?.onFinding ?? false,
        follows_current: followsCurrent(document.policy),
        from_nothing: definition.abilities.startsFromNothing,
        restarts: known !== undefined && (known.rotator !== input.rotator || !isDeepStrictEqual(known.config, document.config)),
        rotate_now: rotateNow,
      };
      if (dryRun) return { revision: 0, recorded: false, result: {} };
      // oxlint-disable-next-line no-await-in-loop -- as above
      const outcome = await this.#commit("rotation.put", input.path, args, write);
      if (outcome.ok || outcome.reason !== "STALE") return this.#done(outcome);
    }
    throw new LeaseholdError("STORE_UNAVAILABLE", "the rotation kept changing", { retryAfterMs: 100 });
  }

  /** Throws ROTATION_NOT_FOUND, ROTATION_IN_PROGRESS, VERSION_MISMATCH, CONFLICT. */
  async delete(path: string, etag: string, write: RotationWrite): Promise<Written> {
    return this.#done(await this.#commit("rotation.delete", path, { etag }, write));
  }

  /** Throws ROTATION_NOT_FOUND, ROTATION_IN_PROGRESS, SECRET_DELETED, CONFLICT. */
  async rotateNow(path: string, write: RotationWrite): Promise<Written> {
    return this.#done(await this.#commit("rotation.request", path, {}, write));
  }

  /** Throws ROTATION_NOT_FOUND, CONFLICT. */
  async abort(path: string, write: RotationWrite): Promise<Written> {
    const known = await this.#known(path);
    const { touchesOutside, overlap } = this.#rotators.definition(known.rotator).abilities;
    return this.#done(await this.#commit("rotation.abort", path, { restorable: touchesOutside && !overlap }, write));
  }

  /** Throws ROTATION_NOT_FOUND, SECRET_DELETED, CONFLICT. */
  async resume(path: string, write: RotationWrite): Promise<Written> {
    const known = await this.#known(path);
    const plan = planNext(known.policy, await ledgerNow(this.#db));
    return this.#done(await this.#commit("rotation.resume", path, { planned_at: iso(plan.plannedAt), window_ends_at: iso(plan.windowEndsAt) }, write));
  }

  async #known(path: string): Promise<RotationRecord> {
    const known = await findRotation(this.#db, path);
    if (known === undefined) throw new LeaseholdError("ROTATION_NOT_FOUND");
    return known;
  }

  #commit(kind: CommandKind, path: string, args: Command["args"], { actor, request }: RotationWrite): Promise<Outcome> {
    return this.#committer.commit({ kind, path, actor, request, args });
  }

  #done(outcome: Outcome): Written {
    if (!outcome.ok) throw refusal(outcome);
    const { uid } = outcome.result;
    if (typeof uid === "string") void this.#changed(uid).catch(() => {});
    return { revision: outcome.revision, recorded: outcome.replay !== true, result: outcome.result };
  }
}
