import type { Change } from "../model/event.ts";
import { inScope, parseScope, type PathScope } from "../model/path.ts";
import { rangeOf } from "../model/range.ts";
import type { Delivery, Gap, SnapshotPlace, SubscriptionRecord } from "../model/subscription.ts";
import { changesAfter, readHead } from "../store/changes.ts";
import type { Db } from "../store/db.ts";
import { type Entry, snapshotPage } from "../store/snapshot.ts";
import type { Offered, Tail } from "./tails.ts";

export interface SourceDeps {
  readonly db: Db;
  readonly tail: Tail;
  /** Whether a SPIFFE id may watch a path, by the newest policy of this process. */
  readonly mayWatch: (principal: string, path: string) => boolean;
}

/** What is delivered next, and the cursor behind it. */
export interface Batch {
  readonly delivery: Delivery;
  /** Events that the owner may not see, since the batch before. */
  readonly skipped: number;
  /** Where the snapshot has come to with it, null at its end; undefined: there is none. */
  readonly snapshot: SnapshotPlace | null | undefined;
}

/** The cursor's place is gone, or belongs to another history. */
export class PlaceLost extends Error {
  override readonly name = "PlaceLost";
  readonly reason: "COMPACTED" | "EPOCH_CHANGED";
  constructor(reason: "COMPACTED" | "EPOCH_CHANGED") {
    super(reason);
    this.reason = reason;
  }
}

const PAGE = 1000;

/**
 * What a subscription delivers from its cursor on: first a gap to be told, then what is left of its snapshot, then the change log. Every event is authorized under the owner's policy when it is taken, by a policy at least as new
 * as the event; a batch that is taken again is judged again. Memory is a page at most.
 */
export class Source implements Offered {
  readonly #deps: SourceDeps;
  readonly #record: SubscriptionRecord;
  readonly #scopes: readonly PathScope[];
  readonly #types: ReadonlySet<number>;
  #at: number;
  #snapshot: SnapshotPlace | undefined;
  #gap: Gap | undefined;
  #skipped = 0;
  #idle = false;
  #wake: (() => void) | undefined;

  constructor(deps: SourceDeps, record: SubscriptionRecord) {
    this.#deps = deps;
    this.#record = record;
    this.#scopes = record.document.paths.map(parseScope);
    this.#types = new Set(record.document.types);
    this.#at = record.revision;
    this.#snapshot = record.snapshot;
    this.#gap = record.gap;
  }

  /** Everything up to here was taken, or is not wanted. */
  get at(): number {
    return this.#at;
  }

  /** Events skipped since the batch that was last taken. */
  get skipped(): number {
    return this.#skipped;
  }

  /**
   * The next batch of at most `limit` events; undefined when there is none for now. It comes again until it is `taken`. Throws PlaceLost, STORE_UNAVAILABLE. @param split events of one transaction may be parted: a refusal is
   * being isolated.
   */
  async next(limit: number, split: boolean): Promise<Batch | undefined> {
    const { tail } = this.#deps;
    this.#idle = false;
    this.#sameEpoch();
    if (tail.applied < this.#at) {
      this.#idle = true;
      return undefined;
    }
    if (this.#gap !== undefined) return this.#batch({ gap: this.#gap, revision: this.#at }, 0, undefined);
    return this.#snapshot === undefined ? this.#nextChanges(limit, split) : this.#nextEntries(this.#snapshot, limit);
  }

  /** The batch was delivered: go on behind it. */
  taken({ delivery, snapshot }: Batch): void {
    if (delivery.gap !== undefined) this.#gap = undefined;
    if (snapshot !== undefined) this.#snapshot = snapshot ?? undefined;
    this.#at = delivery.revision;
    this.#skipped = 0;
  }

  /** Whether the owner may still be told of an event, whatever became of it meanwhile; of a notice he may. */
  mayStill(change: Change | undefined): boolean {
    return change === undefined || this.#mayWatch(change.path);
  }

  /** What was skipped so far has been counted. */
  counted(): void {
    this.#skipped = 0;
  }

  offer(changes: readonly Change[]): void {
    if (!this.#idle || changes[0]!.revision > this.#at + 1 || changes.some((change) => change.revision > this.#at && this.#isWanted(change)))
      return this.wake();
    this.#at = Math.max(this.#at, changes.at(-1)!.revision);
  }

  wake(): void {
    this.#idle = false;
    this.#wake?.();
  }

  /** Resolves when there may be something new, `ms` have passed or `signal` aborts. */
  wait(ms: number, signal: AbortSignal): Promise<void> {
    if (!this.#idle || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal.addEventListener("abort", done, { once: true });
      this.#wake = done;
    });
  }

  async #nextChanges(limit: number, split: boolean): Promise<Batch | undefined> {
    const { db, tail } = this.#deps;
    for (;;) {
      const upTo = tail.applied;
      if (this.#at >= upTo) {
        this.#idle = true; // set in the same turn as `applied` was read: what is applied from now on is offered
        return undefined;
      }
      const page = await changesAfter(db, this.#at, PAGE);
      this.#sameEpoch();
      if (page[0]?.revision !== this.#at + 1) throw new PlaceLost("COMPACTED");
      const applied = page.filter((change) => change.revision <= upTo);
      const wanted = applied.filter((change) => this.#isWanted(change));
      const count = split ? Math.min(limit, wanted.length) : whole(wanted, limit, page.length === PAGE);
      const revision = count < wanted.length ? wanted[count]!.revision - 1 : applied.at(-1)!.revision;
      const allowed = wanted.slice(0, count).filter((change) => this.#mayWatch(change.path));
      if (allowed.length > 0) return this.#batch({ changes: allowed, revision }, count - allowed.length, undefined);
      this.#at = revision;
      this.#skipped += count;
    }
  }

  async #nextEntries(from: SnapshotPlace, limit: number): Promise<Batch> {
    const { db, tail } = this.#deps;
    let place = from;
    for (;;) {
      const scope = this.#scopes[place.scope];
      const page = scope === undefined ? [] : await snapshotPage(db, rangeOf(scope), entryAt(place), this.#record.revision, limit);
      // An entry may be newer than what this process has applied, and so than the policy that it would be judged by.
      await tail.catchUp((await readHead(db)).revision);
      this.#sameEpoch();
      const last = page.at(-1);
      const more = last !== undefined && page.length === limit;
      place = more ? { scope: place.scope, path: last.path, lease: last.leaseId } : { scope: place.scope + 1 };
      const end = place.scope >= this.#scopes.length;
      const wanted = page.filter((entry) => this.#types.size === 0 || this.#types.has(entry.type));
      const allowed = wanted.filter((entry) => this.#mayWatch(entry.path));
      if (allowed.length > 0 || end)
        return this.#batch({ changes: allowed, revision: this.#at, snapshot: true, snapshotEnd: end }, wanted.length - allowed.length, end ? null : place);
      this.#snapshot = place;
      this.#skipped += wanted.length;
    }
  }

  #batch(parts: Pick<Delivery, "revision"> & Partial<Delivery>, skipped: number, snapshot: SnapshotPlace | null | undefined): Batch {
    const { uid, name, epoch } = this.#record;
    const nothing = { changes: [], snapshot: false, snapshotEnd: false, gap: undefined, replay: false };
    return { delivery: { uid, name, epoch, ...nothing, ...parts }, skipped: this.#skipped + skipped, snapshot };
  }

  #sameEpoch(): void {
    if (this.#deps.tail.epoch !== this.#record.epoch) throw new PlaceLost("EPOCH_CHANGED");
  }

  #mayWatch(path: string): boolean {
    return this.#deps.mayWatch(this.#record.owner, path);
  }

  #isWanted(change: Change): boolean {
    return (this.#types.size === 0 || this.#types.has(change.type)) && this.#scopes.some((scope) => inScope(change.path, scope));
  }
}

/** How many of the first changes make a batch of about `limit` that parts no transaction: all changes of one have the same time. @param more that the log may go on with the same transaction. */
function whole(changes: readonly Change[], limit: number, more: boolean): number {
  const isBoundary = (i: number): boolean => changes[i]!.at !== changes[i - 1]!.at;
  if (changes.length <= limit && !more) return changes.length;
  for (let i = Math.min(limit, changes.length - 1); i > 0; i--) if (isBoundary(i)) return i;
  for (let i = limit + 1; i < changes.length; i++) if (isBoundary(i)) return i;
  return changes.length;
}

function entryAt({ path, lease }: SnapshotPlace): Entry | undefined {
  if (path === undefined) return undefined;
  return {
    revision: 0,
    at: 0,
    type: 0,
    path,
    version: 0,
    versions: [],
    leaseId: lease,
    principal: "",
    expireAt: undefined,
    removed: false,
  };
}
