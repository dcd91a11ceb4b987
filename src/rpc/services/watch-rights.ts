import { invalid, LeaseholdError } from "../../base/errors.ts";
import type { Change } from "../../model/event.ts";
import type { PathScope } from "../../model/path.ts";
import type { Authorized } from "../call.ts";
import type { Access, Resources } from "../collaborators.ts";

/** A scope of a watch; for `leases/<id>` with what the lease is judged by. */
interface Watched extends PathScope {
  readonly lease?: { readonly own: boolean; readonly rulePath: string };
}

/** The decision made last, for the rest of this turn of the event loop (conditions may look at the time): thousands of watches of one caller are given the same change one after the other. */
let last: { readonly change: Change; readonly principal: string; readonly policies: object; readonly allowed: boolean } | undefined;

/** What one watch may see, by the policies of the moment it is asked. */
export class WatchRights {
  readonly #call: Authorized;
  readonly #access: Pick<Access, "policies">;
  readonly #watched: readonly Watched[];

  private constructor(call: Authorized, access: Pick<Access, "policies">, watched: readonly Watched[]) {
    this.#call = call;
    this.#access = access;
    this.#watched = watched;
  }

  /** Throws PERMISSION_DENIED unless every scope may be watched. Leases are looked up once: neither owner nor role ever changes. */
  static async of(call: Authorized, access: Pick<Access, "policies">, scopes: readonly PathScope[], resources: Pick<Resources, "lease">): Promise<WatchRights> {
    const rights = new WatchRights(call, access, await Promise.all(scopes.map((scope) => watchedOf(call, scope, resources))));
    rights.judge();
    return rights;
  }

  /** Throws unless every path is still allowed: an exact one by itself, a folder in at least a part, a lease by ownership or its role's path. */
  judge(): void {
    for (const scope of this.#watched) {
      if (scope.lease === undefined) {
        if (scope.exact) this.#call.authorizeItem(scope.prefix);
        else this.#call.authorizeScope(scope);
        continue;
      }
      // `allows` is asked of the owner too, so that the pipeline sees the question; the answer does not matter to him.
      if (this.#call.allows(scope.lease.rulePath) || scope.lease.own) continue;
      // The same words whether the lease exists or not.
      throw new LeaseholdError("PERMISSION_DENIED", "denied", { metadata: { capability: "watch", path: scope.prefix } });
    }
  }

  /** Owners see their own leases where they asked for them by id. */
  sees(change: Change): boolean {
    if (this.#call.allows(change.path)) return true;
    return change.leaseId !== undefined && change.principal === this.#call.principal.id && this.#asksForLease(change.leaseId);
  }

  /** Those that are seen; each path is decided once. */
  seen(changes: readonly Change[]): readonly Change[] {
    if (changes.length === 1) return this.#seesSame(changes[0]!) ? changes : [];
    const decided = new Map<string, boolean>();
    return changes.filter((change) => {
      if (change.leaseId !== undefined) return this.sees(change);
      let allowed = decided.get(change.path);
      if (allowed === undefined) decided.set(change.path, (allowed = this.#call.allows(change.path)));
      return allowed;
    });
  }

  #seesSame(change: Change): boolean {
    if (change.leaseId !== undefined) return this.sees(change);
    const principal = this.#call.principal.id;
    const { policies } = this.#access;
    if (last?.change !== change || last.principal !== principal || last.policies !== policies) {
      if (last === undefined) setImmediate(() => (last = undefined));
      last = { change, principal, policies, allowed: this.sees(change) };
    }
    return last.allowed;
  }

  #asksForLease(id: string): boolean {
    return this.#watched.some((scope) => scope.lease !== undefined && scope.prefix === `leases/${id}`);
  }
}

async function watchedOf(call: Authorized, scope: PathScope, resources: Pick<Resources, "lease">): Promise<Watched> {
  if (!scope.prefix.startsWith("leases/")) return scope;
  if (!scope.exact) throw invalid("paths", "can't watch leases/**; watch the role paths, credentials/**");
  const lease = await resources.lease(scope.prefix.slice("leases/".length));
  return { ...scope, lease: { own: lease?.owner === call.principal.id, rulePath: lease?.rolePath ?? scope.prefix } };
}
