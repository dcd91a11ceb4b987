import { LeaseholdError } from "../base/errors.ts";
import type { Change } from "../model/event.ts";
import { rangeOf } from "../model/range.ts";
import { readHead } from "../store/changes.ts";
import type { Db } from "../store/db.ts";
import { type Entry, snapshotPage } from "../store/snapshot.ts";
import type { Feed } from "./feed.ts";
import { changeInScope, type Hub } from "./hub.ts";
import { Replay } from "./replay.ts";
import { parseResumeToken, pointWithin } from "./resume-token.ts";
import type { Filter, Receiver, Subscription } from "./subscription.ts";

/** Some events of a watch, or only news of how far it has come. */
export interface Step {
  readonly epoch: number;
  /** Everything up to here has been given. */
  readonly revision: number;
  readonly changes: readonly Change[];
  /** Before the snapshot's end, when there is nothing to resume from. */
  readonly snapshot: boolean;
  readonly snapshotEnd: boolean;
  /** To be told even if no change of it is. */
  readonly bookmark: boolean;
  /** Every watch is given these very objects. */
  readonly shared: boolean;
}

export interface WatchQuery extends Filter {
  /** Empty: from now. */
  readonly resumeToken: string;
  readonly snapshot: boolean;
}

/** Where a watch's steps go. It authorizes each change when it delivers it. */
export interface Sink {
  /** As `Receiver.receive`. */
  deliver(step: Step): Promise<void> | undefined;
}

const SNAPSHOT_PAGE = 500;

/**
 * One watch: the snapshot, then what is in the log after it or after the resume token, then the live tail. The tail is joined in the very turn in which the log is read to
 * its end, so nothing falls between the two (lesson 34) and nothing comes twice. A watch that the tail leaves behind goes on in the log.
 */
export class Watch implements Receiver {
  readonly #db: Db;
  readonly #feed: Feed;
  readonly #hub: Hub;
  readonly #query: WatchQuery;
  readonly #sink: Sink;
  #epoch: number;
  /** Everything up to here has been given. */
  #at: number;
  #subscription: Subscription | undefined;
  #closed = false;

  constructor(db: Db, feed: Feed, hub: Hub, query: WatchQuery, sink: Sink) {
    this.#db = db;
    this.#feed = feed;
    this.#hub = hub;
    this.#query = query;
    this.#sink = sink;
    this.#epoch = feed.epoch;
    this.#at = feed.applied;
  }

  /** Ends by throwing: WATCH_TOO_SLOW, RESUME_TOKEN_STALE, REVISION_COMPACTED, or what `deliver` threw; or quietly after `close`. */
  async run(): Promise<void> {
    const { resumeToken, snapshot } = this.#query;
    if (resumeToken !== "") await this.#resume(resumeToken);
    await this.#sink.deliver(this.#step(snapshot ? { revision: 0, snapshot } : {}));
    if (snapshot) {
      await this.#snapshot();
      await this.#sink.deliver(this.#step({ snapshotEnd: true }));
    }
    try {
      for (;;) {
        const subscription = await this.#join();
        if (subscription === undefined || (await subscription.ended) === "closed") return;
        this.#hub.unsubscribe(subscription);
      }
    } finally {
      if (this.#subscription !== undefined) this.#hub.unsubscribe(this.#subscription);
    }
  }

  /** Ends it from outside, at once. */
  close(): void {
    this.#closed = true;
    if (this.#subscription !== undefined) this.#hub.unsubscribe(this.#subscription);
  }

  receive(changes: readonly Change[], upTo: number): Promise<void> | undefined {
    this.#at = upTo;
    const bookmark = changes.length === 0;
    return this.#sink.deliver({ epoch: this.#epoch, revision: upTo, changes, snapshot: false, snapshotEnd: false, bookmark, shared: true });
  }

  async #resume(token: string): Promise<void> {
    const { epoch, applied, floor } = this.#feed;
    // What this process knows decides, unless it would refuse: then the store is asked.
    const point = pointWithin(token, { epoch, revision: applied, floor }) ?? parseResumeToken(token, await readHead(this.#db));
    this.#epoch = point.epoch;
    this.#at = point.revision;
    if (this.#at > this.#feed.applied) await this.#feed.catchUp(this.#at);
    if (point.epoch !== this.#feed.epoch) throw new LeaseholdError("STORE_UNAVAILABLE", "the change feed has yet to see the new epoch", { retryAfterMs: 1000 });
  }

  /** Gives what the log has, and joins the live tail where it ends. Undefined once closed. */
  async #join(): Promise<Subscription | undefined> {
    const replay = new Replay(this.#db);
    for (;;) {
      if (this.#closed) return undefined;
      if (this.#feed.epoch !== this.#epoch)
        throw new LeaseholdError("RESUME_TOKEN_STALE", "a new epoch began", { metadata: { epoch: String(this.#feed.epoch) } });
      const { applied } = this.#feed;
      if (this.#at >= applied) return (this.#subscription = this.#hub.subscribe(this.#query, this, applied));
      const recent = this.#hub.recent.after(this.#at, applied);
      // oxlint-disable-next-line no-await-in-loop -- one page after the other is the point
      const page = recent ?? (await replay.after(this.#at, applied));
      const revision = page.at(-1)!.revision;
      const changes = page.filter((change) => this.#isWanted(change) && this.#query.scopes.some((scope) => changeInScope(change, scope)));
      // A long way with nothing in it is told too, that a reconnect need not go it again.
      const bookmark = recent === undefined;
      // oxlint-disable-next-line no-await-in-loop -- as above
      if (changes.length > 0 || bookmark) await this.#sink.deliver(this.#step({ revision, changes, bookmark, shared: !bookmark }));
      this.#at = revision;
    }
  }

  async #snapshot(): Promise<void> {
    for (const scope of this.#query.scopes) {
      let after: Entry | undefined;
      for (;;) {
        const page: Entry[] = await snapshotPage(this.#db, rangeOf(scope), after, this.#at, SNAPSHOT_PAGE);
        if (page.length > 0) await this.#sink.deliver(this.#step({ revision: 0, changes: page.filter((entry) => this.#isWanted(entry)), snapshot: true }));
        if (page.length < SNAPSHOT_PAGE) break;
        after = page.at(-1);
      }
    }
  }

  #isWanted(change: Change): boolean {
    return this.#query.types.size === 0 || this.#query.types.has(change.type);
  }

  #step(parts: Partial<Step>): Step {
    return { epoch: this.#epoch, revision: this.#at, changes: [], snapshot: false, snapshotEnd: false, bookmark: false, shared: false, ...parts };
  }
}
