/** What decides who may act on a lease, and never changes. */
export interface LeaseOwner {
  readonly rolePath: string;
  readonly owner: string;
}

/** Some 100 bytes each. */
const MAX_KEPT = 50_000;

/** Whose leases are, so that a renewal need not read the row before the commit that moves it. Only leases that somebody holds: one in the pool has no owner yet. */
export class LeaseOwners {
  readonly #kept = new Map<string, LeaseOwner>();

  of(id: string): LeaseOwner | undefined {
    return this.#kept.get(id);
  }

  keep(id: string, owner: LeaseOwner): LeaseOwner {
    if (owner.owner === "") return owner;
    if (this.#kept.size >= MAX_KEPT) for (const [oldest] of this.#kept) if (this.#kept.delete(oldest) && this.#kept.size < MAX_KEPT / 2) break;
    this.#kept.set(id, owner);
    return owner;
  }
}
