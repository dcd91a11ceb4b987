import { type Event, EventType, type WatchResponse, WatchService } from "../gen/leasehold/v1/watch_service_pb.ts";
import type { Client } from "./client.ts";
import { CallError } from "./errors.ts";
import { leaseNow } from "./lease-now.ts";
import { Told } from "./told.ts";
import { pause, verdictOf } from "./verdict.ts";
import { WatchEvent } from "./watch-event.ts";

export interface FollowOptions {
  /** 1 to 100: exact paths, or everything below a folder (`secrets/payments/**`). */
  readonly paths: readonly string[];
  /** Only these; left out or empty: all. */
  readonly types?: readonly EventType[] | undefined;
  /** With the data of secrets: each is a read of its own, authorized and audited. */
  readonly includeValues?: boolean | undefined;
  /** First what is there now. */
  readonly snapshot?: boolean | undefined;
  /** Go on after this point, which an earlier watch of the same paths gave. Not together with `snapshot`. */
  readonly resumeToken?: string | undefined;
  /** Ends the watch, without an error. */
  readonly signal?: AbortSignal | undefined;
  /** An error when the first connection does not come to be. Left out: it is tried for ever. */
  readonly failIfUnreachable?: boolean | undefined;
  /** The stream broke off, for that reason (undefined: the broker ended it); it goes on by itself. Must not throw. */
  readonly onInterrupted?: ((error: CallError | undefined) => void) | undefined;
}

export type Followed =
  | { readonly kind: "event"; readonly event: WatchEvent }
  /** Everything up to `revision` was told. */
  | { readonly kind: "snapshot_end" | "bookmark"; readonly revision: number; readonly resumeToken: string };

/** A stream that held so long was no failure: the next one is tried at once. */
const STEADY_MS = 5000;
/** How long a refused certificate's renewal is waited for. */
const RENEWAL_MS = 30_000;
/** What a snapshot's entries are; asked for beside the wanted ones where a difference is to be found. */
const ENTRY_TYPES = [EventType.SECRET_VERSION_CREATED, EventType.LEASE_ISSUED, EventType.POLICY_CHANGED, EventType.TARGET_CHANGED];

/**
 * One watch over as many streams as it takes: each event once, in commit order. It goes on by resume token when a stream breaks off. Where the changes since are no longer kept (pruned, or
 * the store has another history) it takes a snapshot and tells the difference from what it has told. Ends when `signal` aborts; throws CallError when a new stream can't help.
 */
export async function* follow(client: Client, options: FollowOptions): AsyncGenerator<Followed> {
  const place = new Place(client, options);
  let [attempt, begun, refusedAt] = [0, false, 0];
  const ended = (): boolean => options.signal?.aborted === true;
  while (!ended()) {
    const startedAt = performance.now();
    const { generation } = client;
    let failure: CallError | undefined;
    try {
      for await (const message of client.stream(WatchService.method.watch, place.request(), options.signal)) {
        [begun, refusedAt] = [true, 0];
        yield* place.take(message);
      }
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      failure = error;
    }
    if (ended()) return;
    const verdict = failure === undefined ? "again" : verdictOf(failure);
    if (verdict === "final" || (!begun && options.failIfUnreachable === true && failure?.reason === "")) throw failure!;
    if (verdict === "lost") place.lose();
    if (verdict === "identity") {
      client.renew();
      refusedAt ||= performance.now();
      const hope = client.generation !== generation || (client.reloads && performance.now() - refusedAt < RENEWAL_MS);
      if (!hope) throw failure!;
    }
    options.onInterrupted?.(failure);
    if (performance.now() - startedAt > STEADY_MS) attempt = 0;
    await pause(attempt++, failure, options.signal);
  }
}

/** How far a watch has come, and what it must ask for to go on. */
class Place {
  readonly #client: Client;
  readonly #options: FollowOptions;
  readonly #types: ReadonlySet<EventType>;
  readonly #told: Told;
  /** Single leases: no snapshot lists them, so they are asked for. */
  readonly #leases: ReadonlySet<string>;
  readonly #ended = new Set<string>();
  #token: string;
  #epoch = "";
  /** Newest revision told, of this epoch. */
  #last = -1n;
  #phase: "first snapshot" | "lost" | "changes";
  #inSnapshot = false;

  constructor(client: Client, options: FollowOptions) {
    this.#client = client;
    this.#options = options;
    this.#types = new Set(options.types);
    this.#told = new Told(this.#types);
    this.#leases = new Set(options.paths.filter((path) => path.startsWith("leases/")));
    this.#token = options.resumeToken ?? "";
    this.#phase = options.snapshot === true && this.#token === "" ? "first snapshot" : "changes";
  }

  lose(): void {
    if (this.#phase === "changes") this.#phase = "lost";
    this.#token = "";
  }

  request() {
    const snapshot = this.#phase !== "changes";
    this.#inSnapshot = snapshot;
    if (snapshot) this.#told.beginSnapshot();
    const types = this.#phase === "lost" && this.#types.size > 0 ? [...new Set([...this.#types, ...ENTRY_TYPES])] : [...this.#types];
    return { paths: [...this.#options.paths], types, snapshot, resumeToken: snapshot ? "" : this.#token, includeValues: this.#options.includeValues === true };
  }

  async *take(message: WatchResponse): AsyncGenerator<Followed> {
    const before = this.#inSnapshot ? "" : this.#token;
    const after = message.resumeToken === "" ? before : message.resumeToken;
    for (const [i, event] of message.events.entries()) {
      const token = i === message.events.length - 1 ? after : before;
      const told = event.snapshot ? this.#entry(event) : this.#change(event, token);
      if (told !== undefined) yield { kind: "event", event: told };
    }
    if (message.snapshotEnd !== undefined) yield* this.#endSnapshot(message, message.snapshotEnd.revision);
    // Only now: whoever stops reading in the middle of a message has not been told the rest of it.
    if (!this.#inSnapshot) {
      this.#epoch ||= message.epoch;
      if (message.resumeToken !== "") this.#token = message.resumeToken;
    }
    if (message.bookmark) yield { kind: "bookmark", revision: Number(message.revision), resumeToken: this.#token };
  }

  #entry(event: Event): WatchEvent | undefined {
    const difference = this.#told.entry(event);
    if (difference === undefined || !this.#isWanted(event)) return undefined;
    return new WatchEvent(event, "", this.#phase === "first snapshot" && difference === "created" ? undefined : difference);
  }

  #change(event: Event, token: string): WatchEvent | undefined {
    if (event.revision <= this.#last) return undefined;
    this.#last = event.revision;
    if (event.removed && this.#leases.has(event.leasePath)) this.#ended.add(event.leasePath);
    return this.#told.change(event) && this.#isWanted(event) ? new WatchEvent(event, token) : undefined;
  }

  async *#endSnapshot(message: WatchResponse, revision: bigint): AsyncGenerator<Followed> {
    // First what may fail: it is all done again then.
    const leases = await Promise.all([...this.#leases].map((path) => leaseNow(this.#client, path, revision)));
    for (const event of this.#told.endSnapshot(revision, this.#leases)) yield* this.#gone(event);
    for (const event of leases) {
      if (event.removed) {
        if (this.#told.change(event) && !this.#ended.has(event.leasePath)) yield* this.#gone(event);
        this.#ended.add(event.leasePath);
        continue;
      }
      const told = this.#entry(event);
      if (told !== undefined) yield { kind: "event", event: told };
    }
    // A replica that is behind may give a snapshot from before what was told: within one epoch that stays told.
    this.#last = message.epoch === this.#epoch && this.#last > revision ? this.#last : revision;
    this.#epoch = message.epoch;
    this.#token = message.resumeToken;
    this.#phase = "changes";
    this.#inSnapshot = false;
    yield { kind: "snapshot_end", revision: Number(revision), resumeToken: message.resumeToken };
  }

  *#gone(event: Event): Generator<Followed> {
    if (this.#isWanted(event)) yield { kind: "event", event: new WatchEvent(event, "", "removed") };
  }

  #isWanted(event: Event): boolean {
    return this.#types.size === 0 || this.#types.has(event.type);
  }
}
