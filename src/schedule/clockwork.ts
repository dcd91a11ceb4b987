import { Gather } from "../base/gather.ts";
import type { Log } from "../base/log.ts";
import type { Counter } from "../base/metrics.ts";
import type { LedgerClock } from "../store/ledger-clock.ts";
import type { DueIndex } from "./due-index.ts";

export interface ClockworkOptions {
  /** How often the ledger itself is looked through, in milliseconds. */
  readonly sweepMs: number;
  /** How long a worker has what it claimed. */
  readonly claimMs: number;
  /** Worked on at a time, by this replica; and on one target. */
  readonly concurrency: number;
  readonly perTarget: number;
  /** On one target while clients are served: what is due can wait for them a little. */
  readonly perTargetServing: number;
}

/** Something that was due and is claimed: until the claim ends no other worker has it. */
export interface Due {
  readonly id: string;
  /** What not too many are worked on of at a time. */
  readonly targetUid: string;
}

/** When something is due. Unix milliseconds, database clock. */
export interface DueTime {
  readonly id: string;
  readonly at: number;
}

/** One kind of due rows in the ledger: leases (store/due-leases.ts), rotations (store/rotations.ts). Each decides by the database's clock, in the statement that claims. */
export interface DueSource<D extends Due> {
  /** Takes what is due, oldest first; of each target at most `perTarget`, of `busyTargets` none, so that a sick target can't fill the hands of a worker (lesson 6). */
  claim(limit: number, perTarget: number, busyTargets: readonly string[], claimMs: number): Promise<D[]>;
  /** Takes those of the named ones that are really due: whoever named them only had a hint. */
  claimNamed(ids: readonly string[], busyTargets: readonly string[], claimMs: number): Promise<D[]>;
  /** What becomes due within `horizonMs`, soonest first, behind `after`. */
  upcoming(horizonMs: number, after: DueTime, limit: number): Promise<DueTime[]>;
  /** When these are due; those that wait for nothing any more are left out. */
  times(ids: readonly string[]): Promise<DueTime[]>;
}

export interface ClockworkDeps<D extends Due> {
  readonly source: DueSource<D>;
  readonly clock: LedgerClock;
  /** Undefined without Redis. */
  readonly index: DueIndex | undefined;
  /** Must not reject. */
  readonly act: (due: D) => Promise<void>;
  readonly log: Log;
  readonly serving: () => boolean;
  readonly claimed: Counter;
}

/** Only the near future is held in Redis and in this replica's timer; the sweep brings the next stretch. */
const HORIZON_MS = 60_000;
const MAX_UPCOMING = 20_000;
const PAGE = 500;
const FIRST_ID = "00000000-0000-0000-0000-000000000000";
const BATCH = 100;
/** Our estimate of the database's clock is off by a part of a round trip: what is asked for too early is asked for twice. */
const LATER_MS = 2;
/** When to look again for what seemed due and could not be had: because our clock is ahead, or because its target has its hands full. */
const AGAIN_MS = 20;
const BUSY_MS = 1000;
/** Who was serving so lately still is: between two calls there may be a moment without one. */
const SERVED_MS = 500;

/** Where to look: at what Redis says is due, or through the ledger. */
type Place = "hints" | "ledger";

/**
 * What is due, when it is due. The due index wakes this replica at the right millisecond and spreads the work over replicas; the sweep behind it finds everything by itself, only less promptly, so Redis
 * may be absent, wiped or wrong. Either way the row decides, in one statement on the database's clock: claimed, or not due (finding 10).
 */
export class Clockwork<D extends Due> {
  readonly #deps: ClockworkDeps<D>;
  readonly #options: ClockworkOptions;
  readonly #work = new Set<Promise<void>>();
  readonly #perTarget = new Map<string, number>();
  /** Claimed, but the target has its hands full: a queue for each, so that a slow one holds up nobody else's. */
  readonly #waiting = new Map<string, D[]>();
  readonly #changing: Gather<string, true>;
  readonly #ending: Gather<string, true>;
  #waitingCount = 0;
  #servedAt = Number.NEGATIVE_INFINITY;
  #wakeTimer: NodeJS.Timeout | undefined;
  #wakeAt = Number.POSITIVE_INFINITY;
  #sweepTimer: NodeJS.Timeout | undefined;
  #stopped = false;
  #looking: Promise<void> | undefined;
  #lookAgain: Place | undefined;
  /** Something due was left lying for want of room. */
  #left = false;

  constructor(deps: ClockworkDeps<D>, options: ClockworkOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#changing = new Gather({ run: (ids) => this.#changed(ids), lanes: 2, max: 1000 });
    this.#ending = new Gather({ run: (ids) => this.#ended(ids), lanes: 2, max: 1000 });
  }

  start(): void {
    const again = (): void => {
      if (this.#stopped) return;
      this.#sweepTimer = setTimeout(() => void this.sweep().finally(again), this.#options.sweepMs * (0.9 + 0.2 * Math.random()));
      this.#sweepTimer.unref();
    };
    void this.sweep().finally(again);
  }

  /** Claims nothing more, and ends when what is under way has. What was claimed and not begun is another replica's once the claim ends. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#sweepTimer);
    clearTimeout(this.#wakeTimer);
    await this.quiet();
  }

  /** Ends when nothing that this replica has claimed is under way any more. */
  async quiet(): Promise<void> {
    while (this.#looking !== undefined || this.#work.size > 0) await Promise.all([this.#looking, ...this.#work]);
  }

  /** Something's next action moved: the hint goes to Redis, and this replica wakes up for it if nobody else does. @param at Unix milliseconds, database clock. */
  scheduled(id: string, at: number): void {
    if (this.#stopped || at - this.#deps.clock.now() > HORIZON_MS) return;
    this.#deps.index?.put([{ id, at }]).catch(() => {});
    this.#wake(at);
  }

  /** Something's next action moved: looks up when to, for many at a time. */
  async changed(id: string): Promise<void> {
    if (!this.#stopped) await this.#changing.add(id);
  }

  /** Nothing is due for this for now: its hint goes. */
  ended(id: string): void {
    if (this.#deps.index !== undefined && !this.#stopped) void this.#ending.add(id);
  }

  /** Looks through the ledger for what is due, and tells Redis what will be. Never rejects. */
  async sweep(): Promise<void> {
    await this.#look("ledger");
    if (this.#stopped) return;
    try {
      await this.#foretell();
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Tells Redis what becomes due before long; by the page, so that many of them don't hold up the process. */
  async #foretell(): Promise<void> {
    const { source, index } = this.#deps;
    let after: DueTime = { id: FIRST_ID, at: 0 };
    for (let told = 0; told < MAX_UPCOMING && !this.#stopped; told += PAGE) {
      const page = await source.upcoming(HORIZON_MS, after, PAGE);
      if (told === 0 && page[0] !== undefined) this.#wake(Math.max(page[0].at, this.#again()));
      await index?.put(page).catch(() => {});
      if (page.length < PAGE || index === undefined) return;
      after = page.at(-1)!;
    }
  }

  #wake(at: number): void {
    if (this.#stopped || at >= this.#wakeAt) return;
    clearTimeout(this.#wakeTimer);
    this.#wakeAt = at;
    const ms = Math.min(Math.max(at - this.#deps.clock.now(), 0), HORIZON_MS) + LATER_MS;
    this.#wakeTimer = setTimeout(() => {
      this.#wakeAt = Number.POSITIVE_INFINITY;
      void this.#look("hints");
    }, ms);
    this.#wakeTimer.unref();
  }

  /** One look at a time; what is asked for meanwhile is done after it. Never rejects. */
  async #look(place: Place): Promise<void> {
    if (this.#stopped) return;
    if (this.#looking !== undefined) {
      if (this.#lookAgain !== "ledger") this.#lookAgain = place;
      return this.#looking;
    }
    this.#looking = this.#lookAt(place);
    await this.#looking;
    this.#looking = undefined;
    const again = this.#lookAgain;
    this.#lookAgain = undefined;
    if (again !== undefined) await this.#look(again);
  }

  async #lookAt(place: Place): Promise<void> {
    try {
      for (let at: Place = place; !this.#stopped;) {
        const room = Math.min(this.#options.concurrency - this.#work.size - this.#waitingCount, BATCH);
        if (room <= 0) {
          this.#left = true;
          return;
        }
        const ids = at === "hints" ? await this.#hints(room) : undefined;
        if (ids === undefined) at = "ledger"; // no Redis, or none that answers
        const taken = ids === undefined ? await this.#claim(room) : await this.#claimNamed(ids);
        if ((ids?.length ?? taken) === 0) break;
      }
      await this.#wakeForNext();
    } catch (error) {
      this.#failed(error);
    }
  }

  async #hints(room: number): Promise<string[] | undefined> {
    const { index, clock } = this.#deps;
    return index?.claim(clock.now(), this.#options.claimMs, room).catch(() => undefined);
  }

  async #claim(room: number): Promise<number> {
    const { claimMs } = this.#options;
    return this.#take(await this.#deps.source.claim(room, this.#limit(), this.#busyTargets(), claimMs));
  }

  async #claimNamed(ids: readonly string[]): Promise<number> {
    if (ids.length === 0) return 0;
    const found = await this.#deps.source.claimNamed(ids, this.#busyTargets(), this.#options.claimMs);
    const taken = new Set(found.map((due) => due.id));
    await this.#retime(
      ids.filter((id) => !taken.has(id)),
      this.#again(),
    );
    return this.#take(found);
  }

  /** Corrects hints by the ledger; none before `earliest`. */
  async #retime(ids: readonly string[], earliest = 0): Promise<void> {
    if (ids.length === 0) return;
    const times = (await this.#deps.source.times(ids)).map(({ id, at }) => ({ id, at: Math.max(at, earliest) }));
    const now = this.#deps.clock.now();
    const near = times.filter((time) => time.at - now <= HORIZON_MS);
    for (const time of near) this.#wake(time.at);
    const { index } = this.#deps;
    // What is far away goes too, or it would be looked at whenever a claim is over: the sweep brings it back in time.
    const soon = new Set(near.map((time) => time.id));
    await Promise.all([index?.put(near), index?.remove(ids.filter((id) => !soon.has(id)))]).catch(() => {});
  }

  async #wakeForNext(): Promise<void> {
    const next = await this.#deps.index?.next().catch(() => undefined);
    if (next !== undefined) return this.#wake(Math.max(next, this.#again()));
    const [first] = await this.#deps.source.upcoming(HORIZON_MS, { id: FIRST_ID, at: 0 }, 1);
    if (first !== undefined) this.#wake(Math.max(first.at, this.#again()));
  }

  #again(): number {
    return this.#deps.clock.now() + (this.#left ? BUSY_MS : AGAIN_MS);
  }

  #busyTargets(): string[] {
    const busy = [...this.#perTarget.keys()].filter((uid) => this.#busy(uid));
    if (busy.length > 0) this.#left = true;
    return busy;
  }

  async #ended(ids: readonly string[]): Promise<true[]> {
    await this.#deps.index?.remove(ids).catch(() => {});
    return ids.map(() => true);
  }

  async #changed(ids: readonly string[]): Promise<true[]> {
    await this.#retime(ids);
    return ids.map(() => true);
  }

  #take(found: readonly D[]): number {
    this.#deps.claimed.add(found.length);
    for (const due of found) {
      if (this.#busy(due.targetUid)) this.#wait(due);
      else this.#begin(due);
    }
    return found.length;
  }

  #busy(uid: string): boolean {
    return this.#work.size >= this.#options.concurrency || (this.#perTarget.get(uid) ?? 0) >= this.#limit();
  }

  #limit(): number {
    const now = performance.now();
    if (this.#deps.serving()) this.#servedAt = now;
    return now - this.#servedAt < SERVED_MS ? this.#options.perTargetServing : this.#options.perTarget;
  }

  #wait(due: D): void {
    const queue = this.#waiting.get(due.targetUid);
    if (queue === undefined) this.#waiting.set(due.targetUid, [due]);
    else queue.push(due);
    this.#waitingCount++;
  }

  #begin(due: D): void {
    const uid = due.targetUid;
    this.#perTarget.set(uid, (this.#perTarget.get(uid) ?? 0) + 1);
    const work = this.#deps.act(due).finally(() => {
      this.#work.delete(work);
      const left = this.#perTarget.get(uid)! - 1;
      if (left === 0) this.#perTarget.delete(uid);
      else this.#perTarget.set(uid, left);
      this.#next();
      // Not for each one's place: they end by the hundred.
      if (!this.#left || (this.#options.concurrency - this.#work.size < BATCH && this.#work.size > 0)) return;
      this.#left = false;
      void this.#look("ledger");
    });
    this.#work.add(work);
  }

  /** Whose turn has come, of what waits. */
  #next(): void {
    if (this.#waitingCount === 0 || this.#stopped) return;
    for (const [uid, queue] of this.#waiting) {
      while (queue.length > 0 && !this.#busy(uid)) {
        this.#waitingCount--;
        this.#begin(queue.shift()!);
      }
      if (queue.length === 0) this.#waiting.delete(uid);
    }
  }

  #failed(error: unknown): void {
    if (!this.#stopped) this.#deps.log.warn({ error: (error as Error).message }, "what is due could not be looked up; the next sweep tries again");
  }
}
