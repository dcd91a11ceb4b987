import type { Log } from "../base/log.ts";
import type { Counter } from "../base/metrics.ts";
import type { Db } from "../store/db.ts";
import type { LedgerClock } from "../store/ledger-clock.ts";
import { claimDueLeases, claimNamedLeases, type DueLease, findLease, upcomingLeases } from "../store/leases.ts";
import type { DueIndex } from "./due-index.ts";

export interface ClockworkOptions {
  /** How often the ledger itself is looked through, in milliseconds. */
  readonly sweepMs: number;
  /** How long a worker has what it claimed. */
  readonly claimMs: number;
  /** Leases worked on at a time, by this replica; and on one target. */
  readonly concurrency: number;
  readonly perTarget: number;
}

export interface ClockworkDeps {
  readonly db: Db;
  readonly clock: LedgerClock;
  /** Undefined without Redis. */
  readonly index: DueIndex | undefined;
  readonly act: (due: DueLease) => Promise<void>;
  readonly log: Log;
  readonly claimed: Counter;
}

/** Only the near future is held in Redis. */
const HORIZON_MS = 600_000;
const MAX_UPCOMING = 20_000;
const BATCH = 100;

/**
 * What is due, when it is due. The due index wakes this replica at the right millisecond; the sweep behind it finds everything by itself, only less promptly, so Redis may be
 * absent, wiped or wrong. Either way the row decides, in one statement on the database's clock: claimed or not due.
 */
export class Clockwork {
  readonly #deps: ClockworkDeps;
  readonly #options: ClockworkOptions;
  readonly #work = new Set<Promise<void>>();
  readonly #perTarget = new Map<string, number>();
  readonly #waiting: DueLease[] = [];
  #wakeTimer: NodeJS.Timeout | undefined;
  #wakeAt = Number.POSITIVE_INFINITY;
  #sweepTimer: NodeJS.Timeout | undefined;
  #stopped = false;
  #looking: Promise<void> | undefined;

  constructor(deps: ClockworkDeps, options: ClockworkOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  start(): void {
    const again = (): void => {
      if (this.#stopped) return;
      this.#sweepTimer = setTimeout(() => void this.sweep().finally(again), this.#options.sweepMs * (0.9 + 0.2 * Math.random()));
      this.#sweepTimer.unref();
    };
    void this.sweep().finally(again);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#sweepTimer);
    clearTimeout(this.#wakeTimer);
    await this.#looking;
    while (this.#work.size > 0) await Promise.all(this.#work);
  }

  /** A lease's next action moved. The hint goes to Redis, and this replica wakes up for it if nobody else does. */
  scheduled(id: string, at: number): void {
    if (this.#stopped) return;
    if (at - this.#deps.clock.now() < HORIZON_MS) this.#deps.index?.put([{ id, at }]).catch(() => {});
    this.#wake(at);
  }

  async changed(id: string): Promise<void> {
    const lease = await findLease(this.#deps.db, id);
    if (lease?.nextActionAt === undefined) await this.#deps.index?.remove([id]).catch(() => {});
    else this.scheduled(id, lease.nextActionAt);
  }

  /** Looks through the ledger for what is due, and tells Redis what will be. */
  async sweep(): Promise<void> {
    const { db, index, log } = this.#deps;
    try {
      await this.#claim((limit) => claimDueLeases(db, limit, this.#options.claimMs));
      const upcoming = await upcomingLeases(db, HORIZON_MS, MAX_UPCOMING);
      const [first] = upcoming;
      if (first !== undefined) this.#wake(first.at);
      if (index !== undefined) await index.put(upcoming).catch(() => {});
    } catch (error) {
      if (!this.#stopped) log.warn({ error: (error as Error).message }, "the ledger could not be swept");
    }
  }

  #wake(at: number): void {
    if (this.#stopped || at >= this.#wakeAt) return;
    clearTimeout(this.#wakeTimer);
    this.#wakeAt = at;
    const ms = Math.min(Math.max(at - this.#deps.clock.now(), 0), HORIZON_MS);
    this.#wakeTimer = setTimeout(() => {
      this.#wakeAt = Number.POSITIVE_INFINITY;
      this.#looking ??= this.#look().finally(() => {
        this.#looking = undefined;
      });
    }, ms);
    this.#wakeTimer.unref();
  }

  /** At the time of the first hint: from Redis, which spreads the work over replicas; without it, from the ledger. */
  async #look(): Promise<void> {
    const { db, index, clock, log } = this.#deps;
    const { claimMs } = this.#options;
    try {
      const ids = await index?.claim(clock.now(), claimMs).catch(() => undefined);
      if (ids === undefined) await this.#claim((limit) => claimDueLeases(db, limit, claimMs));
      else if (ids.length > 0) this.#take(await claimNamedLeases(db, ids, claimMs));
      const next = ids === undefined ? undefined : await index?.next().catch(() => undefined);
      if (next !== undefined) this.#wake(next);
      else if (ids === undefined) this.#wake((await upcomingLeases(db, HORIZON_MS, 1))[0]?.at ?? Number.POSITIVE_INFINITY);
    } catch (error) {
      if (!this.#stopped) log.warn({ error: (error as Error).message }, "what is due could not be looked up");
    }
  }

  /** Batch after batch, as long as there is room to work. */
  async #claim(claim: (limit: number) => Promise<DueLease[]>): Promise<void> {
    while (!this.#stopped) {
      const room = this.#options.concurrency * 4 - this.#work.size - this.#waiting.length;
      if (room <= 0) return;
      const found = await claim(Math.min(room, BATCH));
      this.#take(found);
      if (found.length < Math.min(room, BATCH)) return;
    }
  }

  #take(found: readonly DueLease[]): void {
    this.#deps.claimed.add(found.length);
    this.#waiting.push(...found);
    this.#next();
  }

  #next(): void {
    for (let i = 0; i < this.#waiting.length && this.#work.size < this.#options.concurrency && !this.#stopped; ) {
      const due = this.#waiting[i]!;
      const busy = this.#perTarget.get(due.lease.targetUid) ?? 0;
      if (busy >= this.#options.perTarget) {
        i++; // a slow target holds up nobody else's
        continue;
      }
      this.#waiting.splice(i, 1);
      this.#perTarget.set(due.lease.targetUid, busy + 1);
      const work = this.#deps.act(due).finally(() => {
        this.#work.delete(work);
        this.#perTarget.set(due.lease.targetUid, this.#perTarget.get(due.lease.targetUid)! - 1);
        this.#next();
      });
      this.#work.add(work);
    }
  }
}
