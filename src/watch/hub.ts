import type { Change } from "../model/event.ts";
import type { PathScope } from "../model/path.ts";
import type { Listener } from "./feed.ts";
import { RecentChanges } from "./recent-changes.ts";
import { type Filter, type Receiver, Subscription } from "./subscription.ts";
import { Wheel } from "./wheel.ts";

/** Milliseconds of giving between two turns of the event loop. Each turn costs a write to every connection concerned: with 4 instead of 10, a thousand messages took a third more CPU. */
const SLICE_MS = 10;
const RECENT = 4096;

/**
 * Hands each applied change to the watches that may want it. They are found by the change's path and its folders, one map look-up each, so the cost of a
 * change follows the depth of its path and the number of those who get it, not the number of watches.
 */
export class Hub implements Listener {
  readonly recent = new RecentChanges(RECENT);
  readonly #exact = new Map<string, Set<Subscription>>();
  readonly #folders = new Map<string, Set<Subscription>>();
  readonly #all = new Set<Subscription>();
  readonly #wheel = new Wheel((subscription) => subscription.bookmark(this.#offered));
  readonly #schedule = (subscription: Subscription): void => {
    subscription.scheduled = true;
    this.#ready.push(subscription);
    this.#flushSoon();
  };
  #ready: Subscription[] = [];
  #flushing = false;
  /** Everything up to here was offered to whoever was subscribed. */
  #offered = 0;

  get size(): number {
    return this.#all.size;
  }

  get eager(): boolean {
    return this.#all.size > 0;
  }

  /** @param applied the revision the feed has applied, to be asked in the same turn: what comes after it will be offered. */
  subscribe(filter: Filter, receiver: Receiver, applied: number): Subscription {
    const subscription = new Subscription(filter, receiver, this.#schedule);
    this.#offered = Math.max(this.#offered, applied);
    this.#all.add(subscription);
    for (const scope of filter.scopes) add(scope.exact ? this.#exact : this.#folders, scope.prefix, subscription);
    this.#wheel.add(subscription);
    return subscription;
  }

  unsubscribe(subscription: Subscription): void {
    subscription.end("closed");
    if (!this.#all.delete(subscription)) return;
    this.#wheel.remove(subscription);
    for (const scope of subscription.filter.scopes) remove(scope.exact ? this.#exact : this.#folders, scope.prefix, subscription);
  }

  changed(changes: readonly Change[]): void {
    this.recent.add(changes);
    this.#offered = changes.at(-1)!.revision;
    for (const change of changes) this.#offer(change);
    this.#flush();
  }

  /** All of them read the log again, where there may be another epoch. */
  restarted(): void {
    this.recent.clear();
    this.#offered = 0;
    for (const subscription of this.#all) subscription.end("behind");
  }

  #offer(change: Change): void {
    if (this.#all.size === 0) return;
    offerAll(this.#exact.get(change.path), change);
    if (change.leaseId !== undefined) offerAll(this.#exact.get(`leases/${change.leaseId}`), change);
    for (let at = change.path.indexOf("/"); at !== -1; at = change.path.indexOf("/", at + 1)) {
      offerAll(this.#folders.get(change.path.slice(0, at + 1)), change);
    }
  }

  #flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    setImmediate(() => this.#flushNow());
  }

  /** In this turn, so that one watcher of a quiet broker waits for nothing. */
  #flush(): void {
    if (!this.#flushing || this.#ready.length === 0) return;
    this.#flushNow();
  }

  #flushNow(): void {
    const ready = this.#ready;
    const until = performance.now() + SLICE_MS;
    let given = 0;
    while (given < ready.length) {
      ready[given++]!.pump(this.#offered);
      if (given % 16 === 0 && performance.now() > until) break;
    }
    this.#ready = ready.slice(given);
    this.#flushing = false;
    if (this.#ready.length > 0) this.#flushSoon();
  }
}

/** True when the change belongs to the scope: the same rule as the hub's, for what is read from the log. */
export function changeInScope(change: Change, scope: PathScope): boolean {
  if (scope.exact && change.leaseId !== undefined && scope.prefix === `leases/${change.leaseId}`) return true;
  return scope.exact ? change.path === scope.prefix : change.path.startsWith(scope.prefix);
}

function offerAll(subscriptions: ReadonlySet<Subscription> | undefined, change: Change): void {
  if (subscriptions !== undefined) for (const subscription of subscriptions) subscription.offer(change);
}

function add(map: Map<string, Set<Subscription>>, key: string, subscription: Subscription): void {
  const set = map.get(key);
  if (set === undefined) map.set(key, new Set([subscription]));
  else set.add(subscription);
}

function remove(map: Map<string, Set<Subscription>>, key: string, subscription: Subscription): void {
  const set = map.get(key);
  set?.delete(subscription);
  if (set?.size === 0) map.delete(key);
}
