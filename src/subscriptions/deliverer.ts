import { isReason } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Keyring } from "../crypto/keyring.ts";
import { systemActor } from "../model/audit.ts";
import { type Change, SUBSCRIPTION_CHANGED } from "../model/event.ts";
import type { SubscriptionRecord } from "../model/subscription.ts";
import { sealedSinkSecrets } from "../store/subscriptions.ts";
import type { Claim, Claims } from "./claims.ts";
import type { Losses } from "./losses.ts";
import { sinkOf } from "./registry.ts";
import { Runner, type RunnerDeps } from "./runner.ts";
import type { Render, Sink } from "./sink.ts";
import { openSecrets } from "./sink-secrets.ts";
import { PlaceLost, Source, type SourceDeps } from "./source.ts";
import type { Tails } from "./tails.ts";

export interface DelivererDeps {
  readonly runner: RunnerDeps;
  readonly source: SourceDeps;
  readonly tails: Tails;
  readonly claims: Claims;
  readonly losses: Losses;
  readonly keyring: Keyring;
  readonly render: Render;
  readonly log: Log;
}

/** Worked on at a time by one replica. */
const MAX_RUNNING = 500;
/** Claimed at a look: of replicas that start together each gets some. */
const MAX_TAKEN = 50;
/** An attempt that is under way when the process stops may end for so long. */
const STOP_MS = 3000;
/** What can't be opened is tried again after this. */
const BROKEN_MS = 30_000;
const PREFIX = "subscriptions/";

/** Works on the subscriptions with a sink: claims those that nobody has, and runs each until the claim ends. Every replica does. */
export class Deliverer {
  readonly #deps: DelivererDeps;
  readonly #running = new Map<string, { readonly done: Promise<void> }>();
  #looking: Promise<void> | undefined;
  #lookAgain = false;
  #stopped = false;

  constructor(deps: DelivererDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#running.size;
  }

  /** Looks for work now; the schedule calls it at intervals too, so that a dead replica's is taken up. */
  look(): void {
    if (this.#stopped) return;
    if (this.#looking !== undefined) {
      this.#lookAgain = true;
      return;
    }
    this.#lookAgain = false;
    this.#looking = this.#take()
      .catch((error: Error) => this.#deps.log.warn({ error: error.message }, "subscriptions could not be looked for"))
      .finally(() => {
        this.#looking = undefined;
        if (this.#lookAgain) this.look();
      });
  }

  /** What somebody set anew is stopped and taken up again as it is now. */
  changed(changes: readonly Change[]): void {
    if (!changes.some((change) => change.type === SUBSCRIPTION_CHANGED)) return;
    this.#deps.claims.check();
    this.look();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#looking;
    const ended = Promise.all([...this.#running.values()].map(({ done }) => done));
    const patience = new Promise<void>((resolve) => void setTimeout(resolve, STOP_MS).unref());
    for (const stop of this.#stops) stop();
    await Promise.race([ended, patience]);
    await this.#deps.claims.stop();
    await ended;
  }

  /** Ends each runner after what it is doing. */
  readonly #stops = new Set<() => void>();

  async #take(): Promise<void> {
    const room = Math.min(MAX_RUNNING - this.#running.size, MAX_TAKEN);
    if (room <= 0) return;
    for (const claim of await this.#deps.claims.take(room)) this.#start(claim);
  }

  #start(claim: Claim): void {
    const { uid } = claim.record;
    const before = this.#running.get(uid)?.done;
    const entry = { done: Promise.resolve() };
    entry.done = (async () => {
      await before; // fenced already; its last attempt is ending
      await this.#run(claim);
    })().finally(() => {
      if (this.#running.get(uid) === entry) this.#running.delete(uid);
    });
    this.#running.set(uid, entry);
  }

  async #run(claim: Claim): Promise<void> {
    const { record } = claim;
    const { runner, source: sourceDeps, tails, losses, log } = this.#deps;
    const source = new Source(sourceDeps, record);
    const remove = tails.add(source);
    let sink: Sink | undefined;
    const ending = new AbortController();
    const stop = (): void => {
      ending.abort();
      source.wake();
    };
    this.#stops.add(stop);
    if (this.#stopped) stop();
    try {
      sink = await this.#open(record);
      if (sink !== undefined) await new Runner(runner, record, source, sink, claim.signal, ending.signal).run();
    } catch (error) {
      if (error instanceof PlaceLost) await losses.tell(record.uid, record.name, error.reason).catch(() => {});
      else log.warn({ subscription: record.name, error: (error as Error).message }, "a subscription's work broke off; it is taken up again");
    } finally {
      this.#stops.delete(stop);
      remove();
      sink?.close();
      await claim.release();
    }
  }

  /** Undefined when its secrets don't open: that shows as a failure of the subscription. */
  async #open(record: SubscriptionRecord): Promise<Sink | undefined> {
    const { runner, keyring, render } = this.#deps;
    const { sink } = record.document;
    try {
      const secrets = await openSecrets(keyring, record.uid, await sealedSinkSecrets(runner.db, record.uid));
      return sinkOf(sink)!.open(sink, secrets, runner.settings, render);
    } catch (error) {
      if (!isReason(error, "SEALED")) throw error;
      const problem = "its secrets do not open";
      const args = { uid: record.uid, claim: record.claim, problem, delay_ms: BROKEN_MS, refused: false, batch_limit: record.batchLimit };
      const first = record.attempts === 0 ? {} : ({ record: false } as const);
      await runner.committer.commit({
        kind: "subscription.fail",
        path: `${PREFIX}${record.name}`,
        actor: systemActor("subscription.fail", problem),
        args,
        ...first,
      });
      return undefined;
    }
  }
}
