import { reached } from "../base/fault-point.ts";
import type { Log } from "../base/log.ts";
import type { Target } from "../engines/engine.ts";
import { systemActor } from "../model/audit.ts";
import type { RoleRecord } from "../model/target.ts";
import type { Committer } from "../store/command.ts";
import type { LeaseSettings } from "./settings.ts";
import type { TargetClocks } from "./target-clock.ts";

export interface DrawDeps {
  readonly clocks: TargetClocks;
  readonly committer: Committer;
  readonly settings: LeaseSettings;
  readonly log: Log;
}

/** A login of the pool, as `login_taken()` answers it. */
export interface PooledLogin {
  readonly id: string;
  readonly generation: number;
  readonly username: string;
  readonly oid: string;
  readonly system_identifier: string;
  readonly connection: Readonly<Record<string, string>>;
  readonly owned_objects: unknown;
  readonly sealed: string;
}

/** One that this process has to itself for a while, and may enable until `deadlineAt` (the target's clock, Unix milliseconds). */
export interface DrawnLogin extends PooledLogin {
  readonly deadlineAt: number;
  /** By performance.now(): when it goes back, if nobody needed it. */
  readonly backAt: number;
}

/** What is held for one state of a role. */
interface Hand {
  readonly path: string;
  logins: DrawnLogin[];
  /** In a row, none later than BUSY_MS after the one before. */
  issues: number;
  /** By performance.now(), as the next. */
  issuedAt: number;
  /** The pool was empty, or could not be asked: not before this again. */
  drawAt: number;
  drawing: Promise<void> | undefined;
}

/** For so long the target enables a login after it was drawn; the ledger gives it up a statement's time later. */
const HOLD_MS = 10_000;
/** So long before that, what was not needed goes back. */
const MARGIN_MS = 3000;
const LOOK_MS = 1000;
/** Of a pool: so that a few replicas leave one another enough, and a small pool is left alone. */
const SHARE = 8;
/** At 300 issues a second, which is what one caller can do, a draw each 50 ms. */
const MOST = 32;
/** An issue sooner than this after the last one is worth drawing for. */
const BUSY_MS = 1000;
/** After a refusal, since who is refused again and again is to burn no login each time; and after a draw that failed. */
const PAUSE_MS = 10_000;

/**
 * Logins of warm pools that this process has drawn ahead for roles that are being issued: PENDING in the ledger, with a deadline. For these an issue's commit and its call of the target can go side by side,
 * since that they may be enabled is written (docs/adr/0023). What is not needed goes back; what this process forgets, the schedule takes away.
 */
export class DrawnLogins {
  readonly #deps: DrawDeps;
  readonly #hands = new Map<string, Hand>();
  readonly #pausedUntil = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(deps: DrawDeps) {
    this.#deps = deps;
  }

  /** One for an issue of this role, which is nobody else's from now on; undefined: take one that is READY. Draws more for those that follow. */
  next(role: RoleRecord, target: Target<unknown>): DrawnLogin | undefined {
    const most = Math.min(MOST, Math.floor((role.pool?.size ?? 0) / SHARE));
    if (most === 0 || this.#stopped || this.#isPaused(role.uid)) return undefined;
    const hand = this.#handOf(role);
    const now = performance.now();
    const login = hand.logins.find(({ backAt }) => now < backAt);
    hand.logins = hand.logins.filter((other) => other !== login);
    hand.issues = now - hand.issuedAt < BUSY_MS ? hand.issues + 1 : 0;
    hand.issuedAt = now;
    const wanted = Math.min(most, hand.issues);
    if (hand.logins.length < wanted && hand.logins.length <= wanted / 2 && now >= hand.drawAt)
      hand.drawing ??= this.#draw(hand, role, target, wanted - hand.logins.length);
    return login;
  }

  /** Somebody's issue was refused after its login had been enabled: this role does without for a while. */
  pause(role: RoleRecord): void {
    this.#pausedUntil.set(role.uid, performance.now() + PAUSE_MS);
    this.#watch();
  }

  /** Resolves when nothing is being drawn. */
  async settled(): Promise<void> {
    await Promise.all([...this.#hands.values()].map(async (hand) => hand.drawing));
  }

  /** Puts everything back. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.settled();
    await Promise.all([...this.#hands.values()].map((hand) => this.#putBack(hand.path, hand.logins.splice(0))));
  }

  #handOf({ uid, path, generation }: RoleRecord): Hand {
    const key = `${uid} ${generation}`;
    const known = this.#hands.get(key);
    if (known !== undefined) return known;
    const hand: Hand = { path, logins: [], issues: 0, issuedAt: Number.NEGATIVE_INFINITY, drawAt: 0, drawing: undefined };
    this.#hands.set(key, hand);
    this.#watch();
    return hand;
  }

  #isPaused(uid: string): boolean {
    return (this.#pausedUntil.get(uid) ?? 0) > performance.now();
  }

  /** Never rejects. */
  async #draw(hand: Hand, role: RoleRecord, target: Target<unknown>, count: number): Promise<void> {
    const { clocks, committer, settings, log } = this.#deps;
    try {
      // Both read before the row is written: the ledger gives none up before this deadline has passed on the target.
      const deadlineAt = (await clocks.ask(target)).now() + HOLD_MS;
      const backAt = performance.now() + HOLD_MS - MARGIN_MS;
      const args = {
        role_uid: role.uid,
        role_generation: role.generation,
        count,
        hold_ms: HOLD_MS,
        rollback_ms: HOLD_MS + settings.statementMs,
        max_ttl_ms: role.maxTtlMs,
      };
      const outcome = await committer.commit(
        { kind: "lease.draw", path: role.path, actor: systemActor("lease.pool", "drawn ahead"), record: false, args },
        "soon",
      );
      await reached("draw.committed");
      if (!outcome.ok) return;
      const logins = (outcome.result["drawn"] as PooledLogin[]).map((login): DrawnLogin => ({ ...login, deadlineAt, backAt }));
      hand.logins.push(...logins);
      if (logins.length < count) hand.drawAt = performance.now() + LOOK_MS;
    } catch (error) {
      hand.drawAt = performance.now() + PAUSE_MS;
      log.warn({ role: role.path, error: (error as Error).message }, "no logins could be drawn ahead; issuing goes on without them");
    } finally {
      hand.drawing = undefined;
    }
  }

  /** Those whose time is over go back, and what is not asked for any more is forgotten. */
  #look(): void {
    const now = performance.now();
    for (const [key, hand] of this.#hands) {
      const over = hand.logins.filter(({ backAt }) => now >= backAt);
      hand.logins = hand.logins.filter(({ backAt }) => now < backAt);
      void this.#putBack(hand.path, over);
      if (hand.logins.length === 0 && hand.drawing === undefined && now - hand.issuedAt > HOLD_MS) this.#hands.delete(key);
    }
    for (const [uid, until] of this.#pausedUntil) if (until <= now) this.#pausedUntil.delete(uid);
    if (this.#hands.size > 0 || this.#pausedUntil.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #watch(): void {
    if (this.#stopped) return;
    this.#timer ??= setInterval(() => this.#look(), LOOK_MS).unref();
  }

  /** Never rejects: what can't be put back now the schedule takes away. */
  async #putBack(path: string, logins: readonly DrawnLogin[]): Promise<void> {
    const { committer, log } = this.#deps;
    const actor = systemActor("lease.pool", "drawn and not needed");
    const back = logins.map(({ id, generation }) =>
      committer.commit({ kind: "lease.put_back", path, actor, record: false, lease: id, args: { id, generation } }),
    );
    const failed = (await Promise.allSettled(back)).find((result) => result.status === "rejected");
    if (failed !== undefined)
      log.warn({ role: path, error: (failed.reason as Error).message }, "logins that were drawn ahead could not be put back; the schedule takes them away");
  }
}
