import { randomUUID } from "node:crypto";
import { sleep, systemClock } from "../base/clock.ts";
import type { ActSpan, ActSpans } from "../base/act-spans.ts";
import type { Log } from "../base/log.ts";
import { backoffMs } from "../base/retry.ts";
import { systemActor } from "../model/audit.ts";
import type { DeadContent, DeadLetterRecord, Delivery, SubscriptionRecord } from "../model/subscription.ts";
import type { Command, CommandKind, Committer, Outcome } from "../store/command.ts";
import { nextReplay } from "../store/dead-letters.ts";
import type { Db } from "../store/db.ts";
import { passChanges } from "../store/subscriptions.ts";
import type { Batch, Source } from "./source.ts";
import { deliveryId } from "./delivery-id.ts";
import type { SubscriptionSettings } from "./settings.ts";
import type { Sink, Verdict } from "./sink.ts";
import type { Outcomes } from "./outcomes.ts";
import { MAX_LAG_MS } from "./tails.ts";

export interface RunnerDeps {
  readonly db: Db;
  readonly committer: Committer;
  readonly settings: SubscriptionSettings;
  readonly outcomes: Outcomes;
  readonly log: Log;
  /** Milliseconds since this process was last known to be at the head of the change log. */
  readonly lagMs: () => number;
  readonly spans?: ActSpans | undefined;
}

const LAG_WAIT_MS = 200;
/** How far an idle cursor may stay behind: what holds the change log, and what is looked through again after a takeover. */
const PASS_MS = 10_000;
const PASS_REVISIONS = 1000;

/** Another worker has the subscription by now. */
class Fenced extends Error {
  override readonly name = "Fenced";
}

/**
 * One claimed subscription with a sink, until the claim ends: takes a batch, sends it, and moves the cursor when the receiver has acknowledged it; in this order, so that whoever takes over sends it again rather than never.
 * An attempt that fails is repeated for ever, later each time. Events that are refused are sent in halves until the one that is refused stands alone; after some more tries that one goes to the dead letters, and the rest goes on.
 */
export class Runner {
  readonly #deps: RunnerDeps;
  readonly #record: SubscriptionRecord;
  readonly #source: Source;
  readonly #sink: Sink;
  readonly #signal: AbortSignal;
  readonly #ending: AbortSignal;
  #attempts: number;
  #refusals: number;
  #batchLimit: number;
  #deadLetters: number;
  #savedAt: number;
  #passAt = performance.now() + PASS_MS;

  /** @param signal of the claim: everything ends at once. @param ending the process stops: what is under way is finished. */
  constructor(deps: RunnerDeps, record: SubscriptionRecord, source: Source, sink: Sink, signal: AbortSignal, ending: AbortSignal) {
    this.#deps = deps;
    this.#record = record;
    this.#source = source;
    this.#sink = sink;
    this.#signal = signal;
    this.#ending = ending;
    this.#attempts = record.attempts;
    this.#refusals = record.refusals;
    this.#batchLimit = record.batchLimit;
    this.#deadLetters = record.deadLetters;
    this.#savedAt = record.revision;
  }

  /** Ends when a signal aborts or another worker has the subscription. Throws PlaceLost, and what the store says. */
  async run(): Promise<void> {
    try {
      await this.#replayAll();
      while (!this.#over) {
        if (this.#deps.lagMs() > MAX_LAG_MS) {
          await this.#sleep(LAG_WAIT_MS);
          continue;
        }
        const { maxBatch } = this.#record.document;
        const batch = await this.#source.next(this.#batchLimit === 0 ? maxBatch : Math.min(this.#batchLimit, maxBatch), this.#batchLimit > 0);
        if (batch === undefined) await this.#rest();
        else if (!this.#over) await this.#deliver(batch);
      }
    } catch (error) {
      if (!(error instanceof Fenced)) throw error;
    }
  }

  get #over(): boolean {
    return this.#signal.aborted || this.#ending.aborted;
  }

  #sleep(ms: number): Promise<void> {
    return sleep(systemClock, ms, AbortSignal.any([this.#signal, this.#ending]));
  }

  async #deliver(batch: Batch): Promise<void> {
    const verdict = await this.#send(batch.delivery);
    if (verdict === undefined) return;
    switch (verdict.kind) {
      case "accepted":
        return this.#accepted(batch);
      case "unavailable":
        return this.#failed(verdict.problem, false, this.#batchLimit, verdict.retryAfterMs);
      case "refused": {
        const { length } = batch.delivery.changes;
        // At once: a smaller one may well be taken.
        if (length > 1) return this.#failed(verdict.problem, false, Math.ceil(length / 2), 0);
        if (this.#refusals + 1 >= this.#maxRefusals) {
          if (this.#deadLetters < this.#deps.settings.maxDeadLetters) return this.#bury(batch, verdict.problem);
          return this.#failed(`${verdict.problem}, and there are too many dead letters`, false, 1);
        }
        return this.#failed(verdict.problem, true, 1);
      }
    }
  }

  /** Undefined: the claim ended while it was under way, so what came of it is another worker's to find out. */
  async #send(delivery: Delivery): Promise<Verdict | undefined> {
    const span = this.#span(delivery);
    const verdict = await this.#sink.deliver({ id: deliveryId(delivery), delivery, fence: this.#record.claim }, this.#signal);
    span?.end(verdict.kind === "accepted" ? undefined : verdict.problem);
    if (this.#signal.aborted && verdict.kind !== "accepted") return undefined;
    this.#deps.outcomes.attempt(this.#record.document.sink.kind, verdict.kind, delivery.changes.length);
    return verdict;
  }

  /** One of a single change names its path; what made it, and where, is in the audit by that revision. */
  #span({ changes, revision, epoch, replay }: Delivery): ActSpan | undefined {
    const { name, document } = this.#record;
    const [first] = changes;
    const attributes = {
      "leasehold.path": `subscriptions/${name}`,
      "leasehold.sink": document.sink.kind,
      "leasehold.epoch": epoch,
      "leasehold.revision": revision,
      "leasehold.events": changes.length,
      "leasehold.attempt": this.#attempts + 1,
      ...(changes.length === 1 ? { "leasehold.event_path": first!.path } : {}),
    };
    return this.#deps.spans?.start("subscription.deliver", attributes, { why: replay ? "replay" : "change", traceId: "" });
  }

  async #accepted(batch: Batch): Promise<void> {
    const { delivery, skipped } = batch;
    const grown = this.#batchLimit * 2;
    this.#batchLimit = grown >= this.#record.document.maxBatch ? 0 : grown;
    const events = delivery.changes.length;
    const cause = `${events} events to revision ${delivery.revision}${skipped === 0 ? "" : `, ${skipped} skipped`}${delivery.snapshot ? ", of a snapshot" : ""}`;
    await this.#commit("subscription.advance", "subscription.deliver", cause, { ...this.#advance(batch), delivered: events });
    if (this.#attempts > 0) this.#deps.log.info({ subscription: this.#record.name, attempts: this.#attempts }, "a subscription's receiver takes events again");
    this.#attempts = 0;
    this.#moved(batch);
  }

  /** @param delayMs left out: later each time. */
  async #failed(problem: string, refused: boolean, batchLimit: number, delayMs?: number): Promise<void> {
    const { retryMinMs, retryMaxMs } = this.#deps.settings;
    const first = this.#attempts === 0;
    const delay = delayMs ?? backoffMs(this.#attempts, retryMinMs, retryMaxMs);
    const args = { problem, delay_ms: delay, refused, batch_limit: batchLimit };
    await this.#commit("subscription.fail", "subscription.fail", problem, args, first);
    if (first) this.#deps.log.warn({ subscription: this.#record.name, problem }, "a subscription's receiver does not take events; it is tried on");
    this.#attempts++;
    if (refused) this.#refusals++;
    this.#batchLimit = batchLimit;
    await this.#sleep(delay);
  }

  async #bury(batch: Batch, problem: string): Promise<void> {
    const { changes, snapshot, snapshotEnd, gap, revision } = batch.delivery;
    const content: DeadContent = { change: changes[0], snapshot, snapshotEnd, gap };
    const args = { ...this.#advance(batch), delivered: 0, id: randomUUID(), content: JSON.stringify(content), problem, tries: this.#refusals + 1 };
    await this.#commit("subscription.bury", "subscription.dead_letter", `${problem}, revision ${changes[0]?.revision ?? revision}`, args);
    this.#deadLetters++;
    this.#deps.outcomes.dead.add();
    this.#deps.log.warn({ subscription: this.#record.name, revision: changes[0]?.revision, problem }, "an event was refused too often and is a dead letter");
    this.#attempts = 0;
    this.#moved(batch);
  }

  #advance({ delivery, skipped, snapshot }: Batch): Command["args"] {
    return {
      epoch: delivery.epoch,
      revision: delivery.revision,
      skipped,
      batch_limit: this.#batchLimit,
      ...(snapshot === undefined ? {} : { snapshot }),
      ...(delivery.gap === undefined ? {} : { gap: delivery.gap.id }),
    };
  }

  #moved(batch: Batch): void {
    this.#source.taken(batch);
    this.#deps.outcomes.skipped.add(batch.skipped);
    this.#refusals = 0;
    this.#savedAt = batch.delivery.revision;
    this.#passAt = performance.now() + PASS_MS;
  }

  /** Nothing to deliver. What the owner may not see has to be counted, and the cursor must not hold the change log for what nobody wants. */
  async #rest(): Promise<void> {
    const { at, skipped } = this.#source;
    const due = performance.now() >= this.#passAt || at - this.#savedAt >= PASS_REVISIONS;
    if (due && (at > this.#savedAt || skipped > 0)) {
      const { uid, claim, epoch } = this.#record;
      if (skipped > 0) {
        const args = { epoch, revision: at, delivered: 0, skipped, batch_limit: this.#batchLimit };
        await this.#commit("subscription.advance", "subscription.skip", `${skipped} events to revision ${at} that the owner may not watch`, args);
        this.#source.counted();
        this.#deps.outcomes.skipped.add(skipped);
      } else await passChanges(this.#deps.db, uid, claim, epoch, at);
      this.#savedAt = at;
    }
    if (due) this.#passAt = performance.now() + PASS_MS;
    await this.#source.wait(Math.max(1, this.#passAt - performance.now()), this.#signal);
  }

  /** Dead letters that somebody wants delivered once more. One that is refused again stays what it is; a receiver that is away holds up these as it does the others. */
  async #replayAll(): Promise<void> {
    while (!this.#over) {
      const letter = await nextReplay(this.#deps.db, this.#record.uid);
      if (letter === undefined) return;
      if (!this.#source.mayStill(letter.content.change)) {
        await this.#settle(letter, "its owner may not watch it any more");
        continue;
      }
      const verdict = await this.#send(this.#replayOf(letter));
      if (verdict === undefined) return;
      if (verdict.kind === "unavailable") await this.#failed(verdict.problem, false, this.#batchLimit, verdict.retryAfterMs);
      else await this.#settle(letter, verdict.kind === "refused" ? verdict.problem : undefined);
    }
  }

  #replayOf({ epoch, revision, content }: DeadLetterRecord): Delivery {
    const { change, snapshot, snapshotEnd, gap } = content;
    const { uid, name } = this.#record;
    return { uid, name, epoch, revision, changes: change === undefined ? [] : [change], snapshot, snapshotEnd, gap, replay: true };
  }

  async #settle(letter: DeadLetterRecord, problem: string | undefined): Promise<void> {
    const cause = `dead letter ${letter.id}${problem === undefined ? " delivered" : `: ${problem}`}`;
    await this.#commit("dead_letter.settle", "subscription.replay", cause, { id: letter.id, problem: problem ?? null });
    if (problem === undefined) this.#deadLetters--;
  }

  get #maxRefusals(): number {
    const { sink } = this.#record.document;
    return sink.kind === "webhook" ? sink.maxRefusals : Number.POSITIVE_INFINITY;
  }

  async #commit(kind: CommandKind, action: string, cause: string, args: Command["args"], record = true): Promise<void> {
    const { uid, name, claim } = this.#record;
    const actor = systemActor(action, cause);
    const command: Command = { kind, path: `subscriptions/${name}`, actor, args: { uid, claim, ...args }, ...(record ? {} : { record: false }) };
    const outcome: Outcome = await this.#deps.committer.commit(command);
    if (!outcome.ok) throw new Fenced();
  }
}
