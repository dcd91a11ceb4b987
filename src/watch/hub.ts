import type { Change } from "../model/event.ts";
import type { PathScope } from "../model/path.ts";
import type { Head } from "../store/changes.ts";
import type { Listener } from "./feed.ts";
import { Subscription } from "./subscription.ts";

/**
 * Hands each applied change to the watches that may want it. Watches are found by the change's path and its folders, one map look-up each, so the
 * cost of a change follows the depth of its path and not the number of watches.
 */
export class Hub implements Listener {
  readonly #exact = new Map<string, Set<Subscription>>();
  readonly #folders = new Map<string, Set<Subscription>>();
  readonly #all = new Set<Subscription>();

  get size(): number {
    return this.#all.size;
  }

  /** @param applied the revision the feed has applied: what comes after it will be offered. */
  subscribe(scopes: readonly PathScope[], applied: number): Subscription {
    const subscription = new Subscription(scopes, applied);
    this.#all.add(subscription);
    for (const scope of scopes) add(scope.exact ? this.#exact : this.#folders, scope.prefix, subscription);
    return subscription;
  }

  unsubscribe(subscription: Subscription): void {
    subscription.end("closed");
    this.#all.delete(subscription);
    for (const scope of subscription.scopes) remove(scope.exact ? this.#exact : this.#folders, scope.prefix, subscription);
  }

  changed(changes: readonly Change[]): void {
    for (const change of changes) for (const subscription of this.#receivers(change)) subscription.offer(change);
    const upTo = changes.at(-1)!.revision;
    for (const subscription of this.#all) subscription.advance(upTo);
  }

  restarted(_head: Head): void {
    for (const subscription of this.#all) subscription.end("restarted");
  }

  #receivers(change: Change): Iterable<Subscription> {
    const found = new Set<Subscription>();
    const collect = (set: Set<Subscription> | undefined): void => {
      if (set !== undefined) for (const subscription of set) found.add(subscription);
    };
    collect(this.#exact.get(change.path));
    if (change.leaseId !== undefined) {
      collect(this.#exact.get(`leases/${change.leaseId}`));
      collect(this.#folders.get("leases/"));
    }
    for (let at = change.path.indexOf("/"); at !== -1; at = change.path.indexOf("/", at + 1)) collect(this.#folders.get(change.path.slice(0, at + 1)));
    return found;
  }
}

/** True when the change belongs to the scope: the same rule as the hub's, for replay. */
export function changeInScope(change: Change, scope: PathScope): boolean {
  if (scope.prefix.startsWith("leases/")) {
    if (change.leaseId === undefined) return false;
    return !scope.exact || scope.prefix === `leases/${change.leaseId}`;
  }
  return scope.exact ? change.path === scope.prefix : change.path.startsWith(scope.prefix);
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
