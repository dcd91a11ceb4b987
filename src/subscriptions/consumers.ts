import { sleep, systemClock } from "../base/clock.ts";
import { LeaseholdError } from "../base/errors.ts";
import type { Actor } from "../model/audit.ts";
import type { SnapshotPlace, SubscriptionRecord } from "../model/subscription.ts";
import type { Committer } from "../store/command.ts";
import { readHead } from "../store/changes.ts";
import type { Db } from "../store/db.ts";
import { cursorOf, passChanges } from "../store/subscriptions.ts";
import type { AckPoint, AckTokens } from "./ack-token.ts";
import type { Claims } from "./claims.ts";
import { deliveryId } from "./delivery-id.ts";
import type { Losses } from "./losses.ts";
import { type Batch, PlaceLost, Source, type SourceDeps } from "./source.ts";
import type { Outgoing } from "./sink.ts";
import { MAX_LAG_MS, type Tails } from "./tails.ts";

export interface ConsumersDeps {
  readonly db: Db;
  readonly source: SourceDeps;
  readonly tails: Tails;
  readonly claims: Claims;
  readonly losses: Losses;
  readonly committer: Committer;
  readonly tokens: AckTokens;
}

/** A delivery with what acknowledges it. */
export interface Consumed extends Outgoing {
  readonly ackToken: string;
}

/** How often an acknowledgement that came in through another replica is looked for. */
const LOOK_MS = 500;
/** How long an idle cursor may stay behind. */
const PASS_MS = 10_000;

/** Subscriptions without a sink: a consumer's stream has the claim, and what it acknowledges moves the cursor. */
export class Consumers {
  readonly #deps: ConsumersDeps;
  /** Streams that wait for an acknowledgement, by subscription. */
  readonly #waiting = new Map<string, () => void>();

  constructor(deps: ConsumersDeps) {
    this.#deps = deps;
  }

  /**
   * From the cursor on, until `signal` aborts. Throws SUBSCRIPTION_BUSY (also when the subscription is set anew meanwhile), SUBSCRIPTION_PAUSED, SUBSCRIPTION_LOST, SUBSCRIPTION_SINK. The record's owner is the consumer: the caller has made
   * sure of it. @param maxUnacknowledged deliveries under way.
   */
  async *consume(record: SubscriptionRecord, maxUnacknowledged: number, signal: AbortSignal): AsyncGenerator<Consumed> {
    const { claims, losses, tails, source: sourceDeps, tokens } = this.#deps;
    await this.#require(record);
    const claim = await claims.takeOne(record.uid);
    if (claim === undefined) throw new LeaseholdError("SUBSCRIPTION_BUSY");
    const { uid, claim: fence, document } = claim.record;
    const source = new Source(sourceDeps, claim.record);
    const remove = tails.add(source);
    const ended = AbortSignal.any([signal, claim.signal]);
    const unacknowledged: Batch[] = [];
    let passAt = performance.now() + PASS_MS;
    let passed = claim.record.revision;
    // A token acknowledges what came before too, so it carries the end of a snapshot and the gap that its stream was told of.
    let told: Pick<AckPoint, "snapshot" | "gap"> = {};
    try {
      while (!ended.aborted) {
        if (sourceDeps.tail.lagMs > MAX_LAG_MS) {
          await sleep(systemClock, LOOK_MS, ended);
          continue;
        }
        if (unacknowledged.length >= maxUnacknowledged) {
          await this.#waitForCursor(uid, fence, unacknowledged, ended);
          continue;
        }
        const batch = await source.next(document.maxBatch, false);
        if (batch === undefined) {
          if (performance.now() >= passAt) {
            if (unacknowledged.length > 0) await this.#dropAcknowledged(uid, fence, unacknowledged);
            // Never past what is under way.
            if (unacknowledged.length === 0 && source.at > passed) {
              await passChanges(this.#deps.db, uid, fence, claim.record.epoch, source.at);
              passed = source.at;
            }
            passAt = performance.now() + PASS_MS;
          }
          await source.wait(Math.max(1, passAt - performance.now()), ended);
          continue;
        }
        if (ended.aborted) break;
        unacknowledged.push(batch);
        const { delivery, snapshot } = batch;
        told = { ...told, ...(snapshot === undefined ? {} : { snapshot }), ...(delivery.gap === undefined ? {} : { gap: delivery.gap.id }) };
        yield { id: deliveryId(delivery), delivery, fence, ackToken: tokens.seal(uid, { ...pointOf(batch, fence), ...told }) };
        source.taken(batch);
      }
    } catch (error) {
      if (!(error instanceof PlaceLost)) throw error;
      await losses.tell(uid, record.name, error.reason);
      throw await this.#lost(error.reason);
    } finally {
      remove();
      await claim.release();
    }
    if (!signal.aborted) throw new LeaseholdError("SUBSCRIPTION_BUSY");
  }

  /** Answers the cursor. Throws ACK_TOKEN_INVALID, SUBSCRIPTION_SINK. */
  async acknowledge(record: SubscriptionRecord, token: string, actor: Actor): Promise<number> {
    if (record.document.sink.kind !== "") throw new LeaseholdError("SUBSCRIPTION_SINK");
    const point = this.#deps.tokens.open(record.uid, token);
    if (point === undefined) throw new LeaseholdError("ACK_TOKEN_INVALID");
    const outcome = await this.#deps.committer.commit({
      kind: "subscription.advance",
      path: `subscriptions/${record.name}`,
      actor: { ...actor, cause: `${point.delivered} events to revision ${point.revision}` },
      args: { uid: record.uid, ...point },
    });
    if (!outcome.ok) throw new LeaseholdError("ACK_TOKEN_INVALID");
    this.#waiting.get(record.uid)?.();
    return Number(outcome.result["revision"]);
  }

  async #require(record: SubscriptionRecord): Promise<void> {
    if (record.document.sink.kind !== "") throw new LeaseholdError("SUBSCRIPTION_SINK");
    if (record.lost !== undefined) throw await this.#lost(record.lost.reason);
    if (record.paused) throw new LeaseholdError("SUBSCRIPTION_PAUSED");
  }

  async #lost(problem: string): Promise<LeaseholdError> {
    const head = await readHead(this.#deps.db);
    const metadata = { problem, floor: String(head.floor), current: String(head.revision), epoch: String(head.epoch) };
    return new LeaseholdError("SUBSCRIPTION_LOST", problem, { metadata });
  }

  /** Until at least one of them is acknowledged. */
  async #waitForCursor(uid: string, fence: number, unacknowledged: Batch[], signal: AbortSignal): Promise<void> {
    const before = unacknowledged.length;
    while (!signal.aborted && unacknowledged.length === before) {
      const wait = new Promise<void>((resolve) => {
        const done = (): void => {
          clearTimeout(timer);
          signal.removeEventListener("abort", done);
          if (this.#waiting.get(uid) === done) this.#waiting.delete(uid);
          resolve();
        };
        const timer = setTimeout(done, LOOK_MS);
        signal.addEventListener("abort", done, { once: true });
        this.#waiting.set(uid, done);
      });
      // Looked at after the wait is set up: an acknowledgement between the two ends it.
      await this.#dropAcknowledged(uid, fence, unacknowledged);
      if (unacknowledged.length === before) await wait;
      else this.#waiting.get(uid)?.();
    }
  }

  async #dropAcknowledged(uid: string, fence: number, unacknowledged: Batch[]): Promise<void> {
    const cursor = await cursorOf(this.#deps.db, uid);
    if (cursor === undefined || cursor.claim !== fence) {
      this.#deps.claims.drop(uid);
      return;
    }
    const last = unacknowledged.findLastIndex(
      ({ delivery, snapshot }) =>
        cursor.revision > delivery.revision ||
        (cursor.revision === delivery.revision && delivery.gap === undefined && (snapshot === undefined || placeOf(snapshot) === placeOf(cursor.snapshot))) ||
        (delivery.gap !== undefined && cursor.gap !== delivery.gap.id),
    );
    unacknowledged.splice(0, last + 1);
  }
}

function placeOf(place: SnapshotPlace | null): string {
  return place === null ? "" : `${place.scope} ${place.path ?? ""} ${place.lease ?? ""}`;
}

function pointOf({ delivery, skipped }: Batch, claim: number): AckPoint {
  return {
    epoch: delivery.epoch,
    revision: delivery.revision,
    claim,
    delivered: delivery.changes.length,
    skipped,
  };
}
