import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Change } from "../model/event.ts";
import { bumpEpoch, type Head, readHead, readTail, type Tail } from "../store/changes.ts";
import type { Db } from "../store/db.ts";
import type { LedgerClock } from "../store/ledger-clock.ts";

const BATCH = 2000;
const POLL_MS = 1000;
const CATCH_UP_MS = 3000;
/** Who waits for nothing can be told a little later: a look for every lease of a lone caller took a sixth of the broker's CPU, and a core from the target's PostgreSQL just when it was asked. */
const SOON_MS = 20;

/** Whoever keeps something in memory that follows from the change log: policies, the catalog, the read cache, the keyring. */
export interface Applier {
  /** Brings the memory up to these changes; awaited before anyone is told that they are applied. Rejecting holds the feed: it is tried again. */
  apply(changes: readonly Change[]): void | Promise<void>;
  /** The history is another one: load everything anew. */
  reset(): Promise<void>;
}

/** Gets every change once it is applied, in commit order; must not block. */
export interface Listener {
  /** True while somebody waits for what is new: then the feed looks at every nudge at once. */
  readonly eager?: boolean;
  changed(changes: readonly Change[], head: Head): void;
  /** A new epoch began. */
  restarted(head: Head): void;
}

/**
 * The tail of the change log, as this process has applied it. Nudges (own commits, Redis) only say "look now"; a poll each second is the truth.
 * `applied` moves only after every applier is done, so that an event never overtakes the policy it must be judged by.
 */
export class Feed {
  readonly #db: Db;
  readonly #clock: LedgerClock;
  readonly #log: Log;
  readonly #appliers: readonly Applier[];
  readonly #listeners: Listener[] = [];
  readonly #waiting = new Set<{ readonly revision: number; readonly resolve: () => void }>();
  #head: Head = { epoch: 0, revision: 0, floor: 0, now: 0, systemIdentifierChanged: false };
  #applied = 0;
  #freshAt = 0;
  #running: Promise<void> | undefined;
  /** Another look is wanted if this revision is not applied by then. */
  #wanted = 0;
  #soon: NodeJS.Timeout | undefined;
  /** What the timer was set for: a look that comes before it looks for this, too. */
  #soonWanted = 0;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(db: Db, clock: LedgerClock, appliers: readonly Applier[], log: Log) {
    this.#db = db;
    this.#clock = clock;
    this.#appliers = appliers;
    this.#log = log;
  }

  /** Highest revision that every applier has applied. */
  get applied(): number {
    return this.#applied;
  }

  get epoch(): number {
    return this.#head.epoch;
  }

  /** Changes up to here may be gone from the log. */
  get floor(): number {
    return this.#head.floor;
  }

  /** Milliseconds since this process was last known to be at the head. */
  get lagMs(): number {
    return performance.now() - this.#freshAt;
  }

  listen(listener: Listener): void {
    this.#listeners.push(listener);
  }

  /** Reads the head, has everything loaded (so what is loaded is at least as new), then follows. */
  async start(): Promise<void> {
    this.#head = await this.#readHead();
    this.#applied = this.#head.revision;
    await Promise.all(this.#appliers.map((applier) => applier.reset()));
    this.#freshAt = performance.now();
    this.#timer = setInterval(() => this.nudge(), POLL_MS);
    this.#timer.unref();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    clearTimeout(this.#soon);
    await this.#running;
  }

  /** Look now, unless `revision` is applied already; without one, in any case. */
  nudge(revision = Number.POSITIVE_INFINITY): void {
    if (this.#stopped || revision <= this.#applied) return;
    clearTimeout(this.#soon);
    this.#soon = undefined;
    this.#wanted = Math.max(this.#wanted, this.#soonWanted, revision);
    this.#soonWanted = 0;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      if (this.#wanted > this.#applied) this.nudge(this.#wanted);
    });
  }

  /** The same for what nothing in memory follows from, leases above all: in 20 ms, if nobody waits for it. */
  nudgeSoon(revision: number): void {
    if (this.#listeners.some((listener) => listener.eager === true)) this.nudge(revision);
    else if (!this.#stopped) {
      this.#soonWanted = Math.max(this.#soonWanted, revision);
      this.#soon ??= setTimeout(() => this.nudge(), SOON_MS);
    }
  }

  /** Resolves once `revision` is applied; rejects with STORE_UNAVAILABLE when that can't be had in time. */
  catchUp(revision: number): Promise<void> {
    if (revision <= this.#applied) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(entry);
        reject(new LeaseholdError("STORE_UNAVAILABLE", "the change feed is behind", { retryAfterMs: 1000 }));
      }, CATCH_UP_MS);
      const entry = {
        revision,
        resolve: (): void => {
          clearTimeout(timer);
          resolve();
        },
      };
      this.#waiting.add(entry);
      this.nudge(revision);
    });
  }

  async #run(): Promise<void> {
    this.#wanted = 0;
    try {
      const askedAt = performance.now();
      for (;;) {
        const { head, changes } = await this.#readTail();
        if (head.epoch !== this.#head.epoch || head.revision < this.#applied || head.systemIdentifierChanged) await this.#restart(head);
        else if (this.#applied < head.revision) await this.#advance(head, changes);
        else this.#head = head;
        if (this.#applied >= head.revision || this.#stopped) break;
      }
      this.#freshAt = askedAt;
    } catch (error) {
      if (!this.#stopped) this.#log.warn({ error: (error as Error).message }, "the change feed could not look");
    }
  }

  async #advance(head: Head, changes: readonly Change[]): Promise<void> {
    if (changes.length === 0 || changes[0]!.revision !== this.#applied + 1) return this.#restart(head);
    for (const applier of this.#appliers) {
      await applier.apply(changes);
    }
    this.#head = head;
    this.#applied = changes.at(-1)!.revision;
    this.#release();
    for (const listener of this.#listeners) listener.changed(changes, head);
  }

  /** Another epoch, a head below what we have seen, or a gap because we were away longer than the log is kept. */
  async #restart(seen: Head): Promise<void> {
    if (seen.epoch === this.#head.epoch && (seen.revision < this.#applied || seen.systemIdentifierChanged)) await bumpEpoch(this.#db, seen.epoch);
    const head = await this.#readHead();
    this.#log.warn({ epoch: head.epoch, revision: head.revision, applied: this.#applied }, "the store's history changed: loading everything anew");
    await Promise.all(this.#appliers.map((applier) => applier.reset()));
    this.#head = head;
    this.#applied = head.revision;
    this.#release();
    for (const listener of this.#listeners) listener.restarted(head);
  }

  async #readHead(): Promise<Head> {
    const sentAt = Date.now();
    const head = await readHead(this.#db);
    this.#clock.observe(head.now, sentAt, Date.now());
    return head;
  }

  async #readTail(): Promise<Tail> {
    const sentAt = Date.now();
    const tail = await readTail(this.#db, this.#applied, BATCH);
    this.#clock.observe(tail.head.now, sentAt, Date.now());
    return tail;
  }

  #release(): void {
    for (const entry of this.#waiting) {
      if (entry.revision > this.#applied) continue;
      this.#waiting.delete(entry);
      entry.resolve();
    }
  }
}
