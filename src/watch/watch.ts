import { LeaseholdError } from "../base/errors.ts";
import type { Change } from "../model/event.ts";
import type { PathScope } from "../model/path.ts";
import { rangeOf } from "../model/range.ts";
import { changesAfter, readHead } from "../store/changes.ts";
import type { Db } from "../store/db.ts";
import { type Entry, snapshotPage } from "../store/snapshot.ts";
import type { Feed } from "./feed.ts";
import { changeInScope, type Hub } from "./hub.ts";
import { parseResumeToken } from "./resume-token.ts";
import type { Subscription } from "./subscription.ts";

/** Some events of a watch, or only news of how far it has come. */
export interface Step {
  readonly epoch: number;
  /** Everything up to here has been given. */
  readonly revision: number;
  readonly changes: readonly Change[];
  readonly snapshot: boolean;
  readonly snapshotEnd: boolean;
  readonly bookmark: boolean;
}

export interface WatchQuery {
  readonly scopes: readonly PathScope[];
  /** Event types wanted; empty: all. */
  readonly types: ReadonlySet<number>;
  /** Empty: from now. */
  readonly resumeToken: string;
  readonly snapshot: boolean;
}

const PAGE = 500;
const BOOKMARK_MS = 10_000;

/**
 * One watch as a stream of steps: registered on the live tail first, then the snapshot or the history, then the tail, without what was already given. It ends
 * by throwing: WATCH_TOO_SLOW, RESUME_TOKEN_STALE, REVISION_COMPACTED; or quietly when `signal` aborts. The caller authorizes each change when it delivers it.
 */
export async function* watch(db: Db, feed: Feed, hub: Hub, query: WatchQuery, signal: AbortSignal): AsyncGenerator<Step> {
  let subscription = hub.subscribe(query.scopes, feed.applied);
  const { epoch } = feed;
  try {
    let at = feed.applied;
    if (query.resumeToken !== "") {
      const head = await readHead(db);
      at = parseResumeToken(query.resumeToken, head).revision;
      if (at > feed.applied) await feed.catchUp(at);
    }
    const asOf = at;
    yield { epoch, revision: query.snapshot ? 0 : at, changes: [], snapshot: false, snapshotEnd: false, bookmark: false };
    if (query.snapshot) {
      yield* snapshot(db, query, epoch, asOf);
      yield { epoch, revision: asOf, changes: [], snapshot: false, snapshotEnd: true, bookmark: false };
    }
    while (!signal.aborted) {
      for await (const step of replay(db, query, epoch, at, subscription.seen)) {
        at = step.revision;
        yield step;
      }
      for await (const step of live(subscription, query, epoch, at, signal)) {
        at = step.revision;
        yield step;
      }
      if (subscription.state === "too_slow") throw new LeaseholdError("WATCH_TOO_SLOW");
      if (subscription.state !== "restarted") return;
      if (feed.epoch !== epoch) throw new LeaseholdError("RESUME_TOKEN_STALE", "a new epoch began", { metadata: { epoch: String(feed.epoch) } });
      hub.unsubscribe(subscription);
      subscription = hub.subscribe(query.scopes, feed.applied);
    }
  } finally {
    hub.unsubscribe(subscription);
  }
}

async function* snapshot(db: Db, query: WatchQuery, epoch: number, asOf: number): AsyncGenerator<Step> {
  for (const scope of query.scopes) {
    let after: Entry | undefined;
    for (;;) {
      const page: Entry[] = await snapshotPage(db, rangeOf(scope), after, asOf, PAGE);
      if (page.length > 0)
        yield { epoch, revision: 0, changes: page.filter((entry) => isWanted(entry, query.types)), snapshot: true, snapshotEnd: false, bookmark: false };
      if (page.length < PAGE) break;
      after = page.at(-1);
    }
  }
}

/** What happened after `from`, up to `to`, from the log. */
async function* replay(db: Db, query: WatchQuery, epoch: number, from: number, to: number): AsyncGenerator<Step> {
  let at = from;
  while (at < to) {
    const page = await changesAfter(db, at, PAGE);
    if (page.length === 0 || page[0]!.revision !== at + 1) {
      const head = await readHead(db);
      throw new LeaseholdError("REVISION_COMPACTED", "compacted", {
        metadata: { floor: String(head.floor), current: String(head.revision), epoch: String(head.epoch) },
      });
    }
    const due = page.filter((change) => change.revision <= to);
    at = due.at(-1)!.revision;
    const changes = due.filter((change) => isWanted(change, query.types) && query.scopes.some((scope) => changeInScope(change, scope)));
    yield { epoch, revision: at, changes, snapshot: false, snapshotEnd: false, bookmark: changes.length === 0 };
  }
}

/** The tail, as the hub offers it, with a bookmark when nothing came for a while. Ends with the subscription or the signal. */
async function* live(subscription: Subscription, query: WatchQuery, epoch: number, from: number, signal: AbortSignal): AsyncGenerator<Step> {
  let at = from;
  let bookmarkAt = performance.now() + jitter();
  while (!signal.aborted && subscription.state === "open") {
    const { changes, upTo } = subscription.take();
    const news = changes.filter((change) => change.revision > at && isWanted(change, query.types));
    const bookmarkDue = performance.now() >= bookmarkAt;
    if (news.length > 0 || bookmarkDue) {
      at = Math.max(at, upTo);
      bookmarkAt = performance.now() + jitter();
      yield { epoch, revision: at, changes: news, snapshot: false, snapshotEnd: false, bookmark: news.length === 0 };
      continue;
    }
    await subscription.wait(Math.max(1, bookmarkAt - performance.now()), signal);
  }
}

function jitter(): number {
  return BOOKMARK_MS * (0.9 + 0.2 * Math.random());
}

function isWanted(change: Change, types: ReadonlySet<number>): boolean {
  return types.size === 0 || types.has(change.type);
}
