import { randomUUID } from "node:crypto";
import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { type Actor, systemActor } from "../model/audit.ts";
import type { Target, Witness } from "../engines/engine.ts";
import type { Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { knowsMark, listQuarantines, type Quarantine, storeEpoch } from "../store/reconcile.ts";

export interface GateDeps {
  readonly db: Db;
  readonly committer: Committer;
  readonly open: (uid: string) => Promise<Target<unknown>>;
  /** `targets/<name>` */
  readonly pathOf: (uid: string) => string;
  readonly graceMs: number;
  readonly log: Log;
}

/**
 * Keeps automatic work, issue and renewal away from targets on which another history of this ledger was at work (docs/adr/0010). `look` compares and writes; `check` only remembers:
 * a target that this process has not looked at yet is looked at first.
 */
export class TargetGate {
  readonly #deps: GateDeps;
  readonly #looked = new Map<string, Promise<void>>();
  readonly #shut = new Set<string>();

  constructor(deps: GateDeps) {
    this.#deps = deps;
  }

  /** Throws TARGET_MISCONFIGURED `quarantined`, and whatever a first look throws. Revocation by hand does not ask. */
  async check(targetUid: string): Promise<void> {
    let first = this.#looked.get(targetUid);
    if (first === undefined) {
      first = this.look(targetUid);
      this.#looked.set(targetUid, first);
      first.catch(() => this.#looked.delete(targetUid));
    }
    await first;
    if (this.#shut.has(targetUid)) throw new LeaseholdError("TARGET_MISCONFIGURED", "in quarantine", { metadata: { problem: "quarantined" } });
  }

  /** Compares the target's witness with the ledger, and moves it on or shuts the target off. To be called at intervals: how far apart they are is how much of a lost history can go unseen. */
  async look(targetUid: string): Promise<void> {
    const target = await this.#deps.open(targetUid);
    if (target.witness === undefined) return;
    const quarantine = await this.#quarantineOf(targetUid);
    // The target first: a mark found there was committed to its ledger before.
    const witness = await target.witness();
    if (quarantine !== undefined) return this.#stay(targetUid, quarantine, witness);
    this.#shut.delete(targetUid);
    if (witness !== undefined) {
      const known = await knowsMark(this.#deps.db, witness.mark);
      const ahead = witness.epoch > (await storeEpoch(this.#deps.db));
      if (!known || ahead) return this.#shutOff(targetUid, known ? "witness_ahead" : "witness_unknown", witness);
    }
    await this.#move(targetUid, target, witness, systemActor("target.witness", "look"), undefined);
  }

  /** Looks at every target that this process has to do with. Never rejects: a target that can't be asked is looked at next time. */
  async lookAgain(): Promise<void> {
    for (const uid of this.#looked.keys()) {
      // oxlint-disable-next-line no-await-in-loop -- there is time
      await this.look(uid).catch((error: Error) => this.#deps.log.warn({ target: uid, error: error.message }, "a target's witness could not be looked at"));
    }
  }

  /** An operator's word that all is well: our epoch goes above the witness's, which becomes ours. Throws CONFLICT when another broker moved it meanwhile. */
  async release(targetUid: string, actor: Actor): Promise<void> {
    const target = await this.#deps.open(targetUid);
    await this.#release(targetUid, await target.witness?.(), actor);
  }

  async #release(targetUid: string, witness: Witness | undefined, actor: Actor): Promise<void> {
    const target = await this.#deps.open(targetUid);
    if (!(await this.#move(targetUid, target, witness, actor, witness?.epoch ?? 0))) throw new LeaseholdError("CONFLICT");
    await this.#end(targetUid, actor, "released");
  }

  async #quarantineOf(targetUid: string): Promise<Quarantine | undefined> {
    return (await listQuarantines(this.#deps.db)).find((one) => one.targetUid === targetUid);
  }

  async #shutOff(targetUid: string, reason: Quarantine["reason"], witness: Witness): Promise<void> {
    this.#shut.add(targetUid);
    const { committer, graceMs, log } = this.#deps;
    const args = { id: randomUUID(), target_uid: targetUid, reason, witness_mark: witness.mark, witness_epoch: witness.epoch, grace_ms: graceMs };
    await committer.commit({ kind: "quarantine.begin", path: this.#deps.pathOf(targetUid), actor: systemActor("target.quarantine", reason), args });
    log.error({ target: targetUid, reason }, "another history of this ledger was at work on a target: it is in quarantine");
  }

  async #stay(targetUid: string, quarantine: Quarantine, witness: Witness | undefined): Promise<void> {
    this.#shut.add(targetUid);
    if (witness !== undefined && witness.mark !== quarantine.witnessMark) {
      const args = { target_uid: targetUid, witness_mark: witness.mark, witness_epoch: witness.epoch, grace_ms: this.#deps.graceMs };
      const actor = systemActor("target.quarantine", "another broker is at work there");
      await this.#deps.committer.commit({ kind: "quarantine.extend", path: this.#deps.pathOf(targetUid), actor, args });
    } else if (quarantine.over) await this.#release(targetUid, witness, systemActor("target.release", "over"));
  }

  async #end(targetUid: string, actor: Actor, resolution: string): Promise<void> {
    const outcome = await this.#deps.committer.commit({
      kind: "quarantine.end",
      path: this.#deps.pathOf(targetUid),
      actor,
      args: { target_uid: targetUid, resolution },
    });
    if (!outcome.ok && outcome.reason !== "STALE") throw refusal(outcome);
    this.#shut.delete(targetUid);
  }

  /** Writes a new mark, here first, then there. False when another was faster: the next look sees whose it is. @param above raises the store's epoch above this one first. */
  async #move(targetUid: string, target: Target<unknown>, from: Witness | undefined, actor: Actor, above: number | undefined): Promise<boolean> {
    const mark = randomUUID();
    const args = { target_uid: targetUid, mark, above: above ?? null };
    const record = above === undefined ? ({ record: false } as const) : {};
    const outcome = await this.#deps.committer.commit({ kind: "witness.mark", path: this.#deps.pathOf(targetUid), actor, ...record, args });
    if (!outcome.ok) throw refusal(outcome);
    return target.moveWitness!(from?.mark, { epoch: Number(outcome.result["epoch"]), mark });
  }
}
