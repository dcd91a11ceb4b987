import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "../../src/client/client.ts";
import { CallError } from "../../src/client/errors.ts";
import { type Event, type EventType, type WatchResponse, WatchService } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import type { Row } from "./oracle-log.ts";
import type { Random } from "./random.ts";

export interface Told {
  readonly revision: number;
  readonly type: number;
  readonly path: string;
  readonly version: number;
  readonly lease: string;
  readonly value: string | undefined;
  /** Of `Rights.started`, when it was received. */
  readonly policies: number;
}

/** An unbroken chain of streams: what was told between two revisions, each bound exclusive of what came before it. */
export interface Segment {
  from: number;
  /** Versions of secrets, 0 for leases, by path or lease. Undefined: it did not begin with a snapshot. */
  entries: Map<string, number> | undefined;
  readonly told: Told[];
  /** "Everything up to here was sent", and how much had been by then. */
  readonly places: { readonly revision: number; readonly told: number }[];
}

export interface Wish {
  readonly paths: readonly string[];
  readonly types: readonly EventType[];
  readonly includeValues: boolean;
  readonly snapshot: boolean;
}

const PATIENCE_MS = 1500;
/** Longer than `STALL`, by the broker's own measure. */
export const STALL_MS = 3500;
/** `limits.max_stream_stall` of the brokers. */
export const STALL = "1s";

/** How often streams ended for which reason, for who wants to know what a run has met. */
export const ENDS = new Map<string, number>();

export function countEnd(reason: string): void {
  ENDS.set(reason, (ENDS.get(reason) ?? 0) + 1);
}

/** A watcher that speaks the protocol itself: it resumes by the tokens it was given, now here, now there, reads slowly, and leaves when it likes. Throws at the first message that breaks a promise of one stream. */
export class RawWatcher {
  readonly name: string;
  readonly wish: Wish;
  readonly segments: Segment[] = [];
  /** What it is at, for who waits in vain. */
  doing = "begins";
  failure: Error | undefined;
  readonly #clients: readonly Client[];
  readonly #random: Random;
  readonly #policies: () => number;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  #token = "";
  #settled = false;
  #patienceMs = PATIENCE_MS;
  readonly #settle = Promise.withResolvers<void>();
  #stalls: Promise<void> | undefined;

  constructor(name: string, wish: Wish, clients: readonly Client[], random: Random, policies: () => number) {
    [this.name, this.wish, this.#clients, this.#random, this.#policies] = [name, wish, clients, random, policies];
    this.#done = this.#run().catch((error: unknown) => {
      this.failure = error instanceof Error ? error : new Error(String(error));
    });
  }

  /** From now on it stays where it is: no more leaving, no more pauses. */
  settle(): void {
    this.#settled = true;
    this.#settle.resolve();
  }

  /** Reads nothing for so long that a broker with something to send gives up on it. Resolves when it reads again. */
  stall(): Promise<void> {
    return (this.#stalls = Promise.race([sleep(STALL_MS), this.#settle.promise]));
  }

  /** Up to where everything was told. */
  get position(): number {
    return this.segments.at(-1)?.places.at(-1)?.revision ?? -1;
  }

  async end(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #run(): Promise<void> {
    let snapshot = this.wish.snapshot;
    while (!this.#stop.signal.aborted) {
      try {
        await this.#stream(snapshot && this.#token === "");
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        countEnd(error.reason || `code ${error.code}`);
        if (error.reason === "REVISION_COMPACTED" || error.reason === "RESUME_TOKEN_STALE") {
          [snapshot, this.#token] = [true, ""];
        } else if (error.code === 3 || error.reason === "INTERNAL") throw error;
        // The promise of the API: this token skips nothing.
        else this.#token = error.metadata["resume_token"] || this.#token;
        this.doing = `was told ${error.code} ${error.reason} ${error.message}`;
        await sleep(5 + this.#random.below(20));
      }
    }
  }

  async #stream(snapshot: boolean): Promise<void> {
    const { paths, types, includeValues } = this.wish;
    const leave = new AbortController();
    const client = this.#random.of(this.#clients);
    this.doing = `stream of replica ${this.#clients.indexOf(client)}, since ${new Date().toISOString()}, no message`;
    const request = { paths: [...paths], types: [...types], includeValues, snapshot, resumeToken: snapshot ? "" : this.#token };
    const began = this.#token === "" ? undefined : this.segments.at(-1);
    // The answer to a repeated denial waits for its record (rpc/denials.ts), longer than the policy that denied it is in force here. On a starved machine more of it is needed.
    const patience = setTimeout(() => {
      this.#patienceMs *= 2;
      leave.abort();
    }, this.#patienceMs);
    const messages = client.stream(WatchService.method.watch, request, AbortSignal.any([leave.signal, this.#stop.signal]));
    try {
      await this.#read(messages, new StreamReader(began, snapshot, this.#policies), leave, patience);
    } finally {
      clearTimeout(patience);
    }
  }

  async #read(messages: AsyncIterable<WatchResponse>, reader: StreamReader, leave: AbortController, patience: NodeJS.Timeout): Promise<void> {
    let left = this.#random.chance(0.5) ? 1 + this.#random.below(12) : Infinity;
    for await (const message of messages) {
      clearTimeout(patience);
      this.#patienceMs = PATIENCE_MS;
      reader.take(message);
      this.doing = `${this.doing.split(",")[0]}, last message at ${new Date().toISOString()}`;
      if (reader.segment !== undefined && reader.segment !== this.segments.at(-1)) this.segments.push(reader.segment);
      if (message.resumeToken !== "") this.#token = message.resumeToken;
      if (this.#stalls !== undefined) {
        this.doing += ", stalls";
        await this.#stalls;
        this.#stalls = undefined;
      }
      if (this.#settled) continue;
      if (this.#random.chance(0.15)) await sleep(this.#random.below(40));
      if (--left > 0) continue;
      this.doing += ", leaves";
      leave.abort();
    }
  }
}

/** Checks what one stream promises by itself, and writes down the rest. */
class StreamReader {
  segment: Segment | undefined;
  readonly #resumed: boolean;
  readonly #policies: () => number;
  #entries: Map<string, number> | undefined;
  #last = -1;
  #place = -1;

  constructor(began: Segment | undefined, snapshot: boolean, policies: () => number) {
    this.segment = began;
    this.#resumed = began !== undefined;
    this.#policies = policies;
    if (snapshot) this.#entries = new Map();
  }

  take(message: WatchResponse): void {
    for (const event of message.events) {
      if (event.snapshot !== (this.#entries !== undefined && this.segment === undefined))
        throw new Error(`revision ${event.revision}: snapshot flag out of place`);
      if (event.snapshot) this.#entries!.set(event.leasePath === "" ? event.path : event.leasePath, Number(event.version));
      else this.#change(event);
    }
    if (message.snapshotEnd !== undefined) this.#begin(Number(message.snapshotEnd.revision), this.#entries);
    if (message.resumeToken === "") return;
    const revision = revisionOf(message.resumeToken);
    if (this.segment === undefined) this.#begin(revision, undefined);
    if (revision < this.#place) throw new Error(`the place went back from ${this.#place} to ${revision}`);
    this.#place = revision;
    const last = message.events.at(-1);
    if (message.bookmark && last !== undefined) throw new Error("a bookmark with events");
    this.segment!.places.push({ revision, told: this.segment!.told.length });
  }

  #begin(from: number, entries: Map<string, number> | undefined): void {
    this.segment = { from, entries, told: [], places: [] };
  }

  #change(event: Event): void {
    const revision = Number(event.revision);
    if (revision <= this.#last) throw new Error(`event ${revision} after ${this.#last} in one stream`);
    this.#last = revision;
    const told = this.segment!.told;
    // Over streams: at least once.
    if (revision <= (told.at(-1)?.revision ?? this.segment!.from)) {
      if (!this.#resumed) throw new Error(`event ${revision} is not after ${this.segment!.from}, where the stream began`);
      return;
    }
    const value = event.data["v"]?.kind.value;
    told.push({
      revision,
      type: event.type,
      path: event.path,
      version: Number(event.version),
      lease: event.leasePath,
      value: typeof value === "string" ? value : undefined,
      policies: this.#policies(),
    });
  }
}

export function revisionOf(token: string): number {
  return Number(Buffer.from(token, "base64url").toString("latin1").split(".")[2]);
}

/** Whether a row belongs to a wish. */
export function covers({ paths, types }: Pick<Wish, "paths" | "types">, row: Row): boolean {
  if (types.length > 0 && !types.includes(row.type as EventType)) return false;
  return paths.some((path) => (path.endsWith("/**") ? row.path.startsWith(path.slice(0, -2)) : row.path === path || row.lease === path));
}
