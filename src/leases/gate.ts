import { randomUUID } from "node:crypto";
import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { type Actor, systemActor } from "../model/audit.ts";
import type { Target } from "../engines/engine.ts";
import type { Command, Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { listQuarantines, type Quarantine, storeEpoch } from "../store/reconcile.ts";
import { placeOfMark, sightOf } from "../store/sight.ts";
import { type Found, isNews, judge, mayBeACopy, type ShutReason, type Verdict } from "./sight.ts";

export interface GateDeps {
  readonly db: Db;
  readonly committer: Committer;
  readonly open: (uid: string) => Promise<Target<unknown>>;
  /** `targets/<name>` */
  readonly pathOf: (uid: string) => string;
  /** `host:port` of a target as it is described now. */
  readonly addressOf: (uid: string) => string;
  readonly graceMs: number;
  readonly log: Log;
  /** Another replica's mark does as well as one of our own as long as it is not older. Default 20 s. */
  readonly moveAfterMs?: number;
}

const MOVE_AFTER_MS = 20_000;
/** A target in quarantine is asked again this long after the last time, if somebody wants to work there: another replica may have released it. */
const ASK_AGAIN_MS = 2000;

interface Looked {
  readonly address: string;
  /** performance.now() */
  readonly at: number;
  readonly done: Promise<void>;
}

/**
 * Keeps automatic work, issue and renewal away from targets on which another history of this ledger was at work, or that may be an old copy of the target that is meant (docs/adr/0010, 0012). `look`
 * compares and writes; `check` only remembers: a target that this process has not looked at yet, or not at its present address, is looked at first.
 */
export class TargetGate {
  readonly #deps: GateDeps;
  readonly #looked = new Map<string, Looked>();
  readonly #shut = new Map<string, ShutReason>();
  /** Where this process has left a mark: a start always leaves one, since a start may be that of a restored ledger. */
  readonly #marked = new Set<string>();

  constructor(deps: GateDeps) {
    this.#deps = deps;
  }

  /** Throws TARGET_MISCONFIGURED `quarantined`, and whatever a first look throws. Revocation by hand does not ask. */
  async check(targetUid: string): Promise<void> {
    const reason = await this.#reason(targetUid);
    if (reason !== undefined) throw quarantined(reason);
  }

  /** Whether what a revocation by hand has found or done there ends a lease: not on what may be a copy of the target. Throws as `check`. */
  async counts(targetUid: string): Promise<void> {
    const reason = await this.#reason(targetUid);
    if (reason !== undefined && mayBeACopy(reason)) throw quarantined(reason);
  }

  /** Compares the target with what the ledger has seen of it, and moves its mark on or shuts it off. To be called at intervals: how far apart they are is how much of a lost history can go unseen. */
  async look(targetUid: string): Promise<void> {
    const { db, addressOf } = this.#deps;
    const address = addressOf(targetUid);
    const target = await this.#deps.open(targetUid);
    if (target.witness === undefined) return;
    const quarantine = await this.#quarantineOf(targetUid);
    // Before the target: what it shows then is not older than this, unless it has gone back. And the target before the places: a mark found there was committed to its ledger before.
    const sight = await sightOf(db, targetUid);
    const found = await this.#find(target, address);
    const verdict = judge(sight, found, await storeEpoch(db));
    if (quarantine !== undefined) return this.#stay(targetUid, target, quarantine, found, verdict);
    if (verdict.shut !== undefined) return this.#shutOff(targetUid, verdict.shut, found);
    this.#shut.delete(targetUid);
    if (verdict.behind) this.#deps.log.error({ target: targetUid }, "a target has gone back in time: it is compared with the ledger");
    if (this.#marked.has(targetUid) && !verdict.behind && !isNews(sight, found) && sight!.ageMs < (this.#deps.moveAfterMs ?? MOVE_AFTER_MS)) return;
    await this.#move(targetUid, target, found, { actor: systemActor("target.witness", "look"), behind: verdict.behind });
  }

  /** Looks at every target that this process has to do with. Never rejects: a target that can't be asked is looked at next time. */
  async lookAgain(): Promise<void> {
    for (const uid of this.#looked.keys()) {
      // oxlint-disable-next-line no-await-in-loop -- there is time
      await this.look(uid).catch((error: Error) => this.#deps.log.warn({ target: uid, error: error.message }, "a target's witness could not be looked at"));
    }
  }

  /** An operator's word that all is well: our epoch goes above the witness's, which becomes ours, and a scan becomes due. Throws CONFLICT when another broker moved it meanwhile. */
  async release(targetUid: string, actor: Actor): Promise<void> {
    const address = this.#deps.addressOf(targetUid);
    const target = await this.#deps.open(targetUid);
    await this.#release(targetUid, target, await this.#find(target, address), actor);
  }

  async #reason(targetUid: string): Promise<ShutReason | undefined> {
    const address = this.#deps.addressOf(targetUid);
    let looked = this.#looked.get(targetUid);
    const stale = this.#shut.has(targetUid) && looked !== undefined && performance.now() - looked.at > ASK_AGAIN_MS;
    if (looked?.address !== address || stale) {
      const first: Looked = { address, at: performance.now(), done: this.look(targetUid) };
      this.#looked.set(targetUid, first);
      first.done.catch(() => {
        if (this.#looked.get(targetUid) === first) this.#looked.delete(targetUid);
      });
      looked = first;
    }
    await looked.done;
    return this.#shut.get(targetUid);
  }

  async #find(target: Target<unknown>, address: string): Promise<Found> {
    const { systemIdentifier, timeline } = await target.identify();
    const witness = await target.witness!();
    const place = witness === undefined ? undefined : await placeOfMark(this.#deps.db, witness.mark);
    return { address, systemIdentifier, timeline, witness, place };
  }

  async #release(targetUid: string, target: Target<unknown>, found: Found, actor: Actor): Promise<void> {
    if (!(await this.#move(targetUid, target, found, { actor, above: found.witness?.epoch ?? 0 }))) throw new LeaseholdError("CONFLICT");
    await this.#end(targetUid, actor, "released");
  }

  async #quarantineOf(targetUid: string): Promise<Quarantine | undefined> {
    return (await listQuarantines(this.#deps.db)).find((one) => one.targetUid === targetUid);
  }

  async #shutOff(targetUid: string, reason: ShutReason, { witness }: Found): Promise<void> {
    this.#shut.set(targetUid, reason);
    const { graceMs, log } = this.#deps;
    const args = { id: randomUUID(), reason, witness_mark: witness?.mark ?? "", witness_epoch: witness?.epoch ?? 0, grace_ms: graceMs };
    await this.#commit("quarantine.begin", targetUid, systemActor("target.quarantine", reason), args);
    log.error({ target: targetUid, reason }, "a target is in quarantine: nothing is issued or dropped there by itself");
  }

  async #stay(targetUid: string, target: Target<unknown>, quarantine: Quarantine, found: Found, verdict: Verdict): Promise<void> {
    this.#shut.set(targetUid, verdict.shut ?? quarantine.reason);
    const mark = found.witness?.mark ?? "";
    if (verdict.shut === undefined && !verdict.behind) {
      // The address leads to the right server again. (Only this ledger writes what it knows.)
      await this.#move(targetUid, target, found, { actor: systemActor("target.witness", "look") });
      await this.#end(targetUid, systemActor("target.release", "the target is the one it was"), "the target is the one it was");
    } else if (mark !== quarantine.witnessMark) {
      const args = { witness_mark: mark, witness_epoch: found.witness?.epoch ?? 0, grace_ms: this.#deps.graceMs };
      await this.#commit("quarantine.extend", targetUid, systemActor("target.quarantine", "its mark has changed"), args);
    } else if (quarantine.over) await this.#release(targetUid, target, found, systemActor("target.release", "over"));
  }

  async #end(targetUid: string, actor: Actor, resolution: string): Promise<void> {
    const outcome = await this.#commit("quarantine.end", targetUid, actor, { resolution });
    if (!outcome.ok && outcome.reason !== "STALE") throw refusal(outcome);
    this.#shut.delete(targetUid);
  }

  /**
   * Writes a new mark, here first, then there, then here that it has arrived. False when another was faster: the next look sees whose it is. `above` raises the store's epoch above this one first, and
   * takes the target for what it is now.
   */
  async #move(
    targetUid: string,
    target: Target<unknown>,
    { witness, address, systemIdentifier, timeline }: Found,
    { actor, behind = false, above }: { readonly actor: Actor; readonly behind?: boolean; readonly above?: number },
  ): Promise<boolean> {
    const mark = randomUUID();
    const seen = { address, system_identifier: systemIdentifier, timeline, reset: above !== undefined };
    const args = { ...seen, mark, seen: witness?.mark ?? null, behind, above: above ?? null };
    const outcome = await this.#commit("witness.mark", targetUid, actor, args, above !== undefined);
    if (!outcome.ok) throw refusal(outcome);
    if (!(await target.moveWitness!(witness?.mark, { epoch: Number(outcome.result["epoch"]), mark }))) return false;
    const arrived = await this.#commit("witness.seen", targetUid, actor, { ...seen, mark }, false);
    if (!arrived.ok) throw refusal(arrived);
    this.#marked.add(targetUid);
    return true;
  }

  #commit(kind: Command["kind"], targetUid: string, actor: Actor, args: Command["args"], record = true): ReturnType<Committer["commit"]> {
    const command = { kind, path: this.#deps.pathOf(targetUid), actor, args: { target_uid: targetUid, ...args } };
    return this.#deps.committer.commit(record ? command : { ...command, record: false });
  }
}

function quarantined(reason: ShutReason): LeaseholdError {
  return new LeaseholdError("TARGET_MISCONFIGURED", "in quarantine", { metadata: { problem: "quarantined", quarantine: reason } });
}
