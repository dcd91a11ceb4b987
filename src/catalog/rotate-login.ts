import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { Sensitive } from "../base/sensitive.ts";
import { reached } from "../base/fault-point.ts";
import { keyIdOf, open, seal } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import { newPassword } from "../engines/generate.ts";
import { type Actor, systemActor } from "../model/audit.ts";
import type { TargetRecord } from "../model/target.ts";
import { type CandidateLogin, candidateLogin, targetsWithCandidate, targetsWithDueLogin } from "../store/catalog.ts";
import type { Command, Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { targetBinding } from "./binding.ts";
import type { Catalog } from "./catalog.ts";
import type { OpenTargets } from "./open-targets.ts";

export interface LoginRotatorDeps {
  readonly db: Db;
  readonly catalog: Catalog;
  readonly targets: OpenTargets;
  readonly keyring: Keyring;
  readonly committer: Committer;
  readonly instance: string;
  readonly log: Log;
  /** Throws while nothing automatic is to be done on a target. */
  readonly mayWork: (targetUid: string) => Promise<void>;
}

/** By the target's clock: later than this after it was asked, it sets nothing any more. */
const DEADLINE_MS = 15_000;
const MAX_TRIES = 5;
/** A rotation that was begun so long ago and has not ended is taken up again. */
const RESUME_AFTER_MS = 60_000;
/** A name that no login has: asking for it proves that the candidate may do what the broker does. */
const NOBODY = "nobody_0";
const UNFINISHED = "left unfinished";
const DUE = "due";

/**
 * The broker's own login on a target, rotated between two (finding 18): the candidate's password is committed, then set by the login in use, then tried by logging in, then it is the one in use. The other
 * keeps its password until its turn comes again, so that a store restored from a backup still gets in. Whoever finds a candidate goes on with it; setting it twice is the same as once.
 */
export class LoginRotator {
  readonly #deps: LoginRotatorDeps;

  constructor(deps: LoginRotatorDeps) {
    this.#deps = deps;
  }

  /** Answers the login that is in use now. @param which `candidate`: only one that is there already; when there is none any more, nothing is done. Throws TARGET_NOT_FOUND, TARGET_UNAVAILABLE, TARGET_MISCONFIGURED (`no_login_rotation`: not with this engine), SEALED. */
  async rotate(
    name: string,
    actor: Actor,
    request: Command["request"],
    which: "new" | "candidate" = "new",
  ): Promise<{ readonly login: string; readonly revision: number; readonly recorded: boolean }> {
    const { db, catalog, committer } = this.#deps;
    for (let i = 0; i < MAX_TRIES; i++) {
      const target = await catalog.refreshTarget(name);
      if (target === undefined) throw new LeaseholdError("TARGET_NOT_FOUND");
      const candidate = await candidateLogin(db, target.uid);
      if (candidate === undefined) {
        if (which === "candidate") return { login: target.login ?? "", revision: 0, recorded: false };
        await this.#stage(target, actor);
        continue;
      }
      await reached("login.staged");
      await this.#set(target, candidate);
      await reached("login.set");
      const args = { uid: target.uid, generation: target.generation, login: candidate.login };
      const outcome = await committer.commit({ kind: "target.promote_login", path: `targets/${name}`, actor, request, args });
      if (outcome.ok) {
        await reached("login.promoted");
        await catalog.refreshTarget(name);
        return { login: String(outcome.result["login"]), revision: outcome.revision, recorded: outcome.replay !== true };
      }
      if (outcome.reason !== "STALE") throw refusal(outcome);
    }
    throw new LeaseholdError("STORE_UNAVAILABLE", "the target kept changing", { retryAfterMs: 100 });
  }

  /** Goes on with rotations that a crash has left, and begins those that are due. Rejects only without the store. */
  async resume(): Promise<void> {
    const { db, log } = this.#deps;
    const work = async (name: string, cause: string): Promise<void> => {
      const target = await this.#deps.catalog.refreshTarget(name);
      if (target === undefined) return;
      await this.#deps.mayWork(target.uid);
      const actor = systemActor("target.rotate_login", cause);
      // A candidate that another replica has staged meanwhile is this replica's to finish too: whoever is slower finds it done.
      if (cause === DUE && !(await this.#stage(target, actor, true))) return;
      await this.rotate(name, actor, undefined, "candidate");
    };
    for (const [names, cause] of [
      [await targetsWithCandidate(db, RESUME_AFTER_MS), UNFINISHED],
      [await targetsWithDueLogin(db), DUE],
    ] as const) {
      for (const name of names) {
        // oxlint-disable-next-line no-await-in-loop -- seldom more than one
        await work(name, cause).catch((error: Error) =>
          log.warn({ target: name, error: error.message }, "a rotation of the broker's login could not be done; it is tried again"),
        );
      }
    }
  }

  /** Answers whether a candidate was staged: not when there is one already, the target was changed, or with `onlyDue` it is not time yet. */
  async #stage(target: TargetRecord, actor: Actor, onlyDue = false): Promise<boolean> {
    const { keyring, committer, instance } = this.#deps;
    const password = newPassword();
    const sealed = seal(keyring, targetBinding(target.uid), password.reveal());
    password.wipe();
    const args = {
      uid: target.uid,
      generation: target.generation,
      login: target.otherLogin ?? `leasehold_${instance}_2`,
      sealed: Buffer.from(sealed).toString("base64"),
      key_id: keyIdOf(sealed),
      only_due: onlyDue,
    };
    const outcome = await committer.commit({
      kind: "target.stage_login",
      path: `targets/${target.name}`,
      actor: { ...actor, action: "target.stage_login" },
      args,
    });
    if (!outcome.ok && outcome.reason !== "STALE") throw refusal(outcome);
    return outcome.ok;
  }

  async #set(target: TargetRecord, candidate: CandidateLogin): Promise<void> {
    const { keyring, targets } = this.#deps;
    const password = new Sensitive(await open(keyring, candidate.sealed, targetBinding(target.uid)));
    const current = await targets.open(target.uid);
    if (current.setBrokerLogin === undefined) throw new LeaseholdError("TARGET_MISCONFIGURED", "engine", { metadata: { problem: "no_login_rotation" } });
    const { clockSkewMs } = await current.identify();
    await current.setBrokerLogin(candidate.login, password, Date.now() + clockSkewMs + DEADLINE_MS);
    const tried = targets.openAs(target, candidate.login, password);
    try {
      await tried.find(NOBODY);
    } finally {
      await tried.close();
    }
  }
}
