/**
 * The database's clock as this process estimates it: every poll of the change feed brings a fresh pair. What the ledger decides, it decides by
 * `leasehold_now()` itself; this is for reads answered from memory (not_before, expiry of a cached version), where a round trip is what we save.
 */
export class LedgerClock {
  #offsetMs = 0;

  /** @param databaseNow Unix milliseconds read from the database between the two process instants `sentAt` and `receivedAt`. */
  observe(databaseNow: number, sentAt: number, receivedAt: number): void {
    this.#offsetMs = databaseNow - (sentAt + receivedAt) / 2;
  }

  now(): number {
    return Date.now() + this.#offsetMs;
  }
}
