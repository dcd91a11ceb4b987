import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "../../src/client/client.ts";
import type { CallError } from "../../src/client/errors.ts";
import { type Followed, follow } from "../../src/client/follow.ts";
import { EventType } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import { keyOf, type Row } from "./oracle-log.ts";
import { countEnd, covers, STALL_MS, type Wish } from "./oracle-watcher.ts";

/** After these something is there that a snapshot lists, and a snapshot may have told it already; */
const ENTERED: ReadonlySet<number> = new Set([EventType.SECRET_VERSION_CREATED, EventType.ROTATION_SUCCEEDED, EventType.LEASE_ISSUED]);
/** after these it is not. */
const ENDED: ReadonlySet<number> = new Set([EventType.SECRET_DELETED, EventType.SECRET_PURGED, EventType.LEASE_EXPIRED, EventType.LEASE_REVOKED]);

/** A watcher that leaves everything to the client helper, which tells each event once. */
export class ClientWatcher {
  readonly name: string;
  readonly wish: Wish;
  readonly told: Followed[] = [];
  readonly doing = "follows";
  failure: Error | undefined;
  position = -1;
  readonly #stop = new AbortController();
  readonly #settle = Promise.withResolvers<void>();
  #stalls: Promise<void> | undefined;
  readonly #done: Promise<void>;

  constructor(name: string, wish: Wish, client: Client) {
    [this.name, this.wish] = [name, wish];
    this.#done = this.#run(client).catch((error: unknown) => {
      this.failure = error instanceof Error ? error : new Error(String(error));
    });
  }

  settle(): void {
    this.#settle.resolve();
  }

  /** As `RawWatcher.stall`. */
  stall(): Promise<void> {
    return (this.#stalls = Promise.race([sleep(STALL_MS), this.#settle.promise]));
  }

  async end(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #run(client: Client): Promise<void> {
    const onInterrupted = (error: CallError | undefined): void => countEnd(`client ${error?.reason || `code ${error?.code}`}`);
    for await (const told of follow(client, { ...this.wish, signal: this.#stop.signal, onInterrupted })) {
      this.told.push(told);
      await this.#stalls;
      this.#stalls = undefined;
      const revision = told.kind === "event" ? told.event.revision : told.revision;
      if (told.kind !== "event" || !told.event.snapshot) this.position = Math.max(this.position, revision);
    }
  }
}

/** Throws when what the helper told is not the log: each change once, in order, but for what a snapshot told instead; differences that are ones; and at the end the state that there is. */
export function verifyClient(watcher: ClientWatcher, rows: readonly Row[]): void {
  const state = new Map<string, number>();
  const { types } = watcher.wish;
  const wants = (...wanted: readonly EventType[]): boolean => types.length === 0 || wanted.every((type) => types.includes(type));
  // What came after its end (expiries, what housekeeping did) it was not there for.
  const of = rows.filter((row) => row.revision <= watcher.position && covers(watcher.wish, row));
  let [at, last] = [-1, -1];
  let [told, gone] = [new Map<string, number>(), new Set<string>()];
  const skip = (to: number): void => {
    for (const row of of.filter(({ revision }) => revision > Math.max(at, last) && revision < to)) {
      const known = ENTERED.has(row.type) && (told.get(keyOf(row)) ?? -1) >= row.version;
      if (!known && !(row.removed && gone.has(keyOf(row))))
        throw new Error(`revision ${row.revision} (${row.path}) was not told; ${last} was before, ${to} after`);
    }
  };
  for (const each of watcher.told) {
    if (each.kind !== "event") {
      if (each.kind === "bookmark") skip(each.revision + 1);
      else at = each.revision;
      continue;
    }
    const { path, version, revision, type, difference, snapshot, removed } = each.event;
    const lease = each.event.leasePath;
    const key = keyOf({ path, lease });
    if (snapshot) {
      if (at >= 0 && difference === undefined) throw new Error(`${path}: an entry of a second snapshot without a difference`);
      // Who did not ask for removals is not told of them, and then of another creation.
      const asked = lease === "" ? wants(EventType.SECRET_DELETED) : wants(EventType.LEASE_EXPIRED, EventType.LEASE_REVOKED);
      const isNew = difference === "created" || difference === undefined;
      if (isNew ? asked && state.has(key) : !state.has(key)) throw new Error(`${key}: ${difference} is no difference`);
      if (difference === "changed" && lease === "" && state.get(key) === version && types.length > 0)
        throw new Error(`${key}: told as changed, but is the same`);
      if (removed) gone.add(key);
      else told.set(key, version);
    } else {
      if (revision <= last) throw new Error(`revision ${revision} was told after ${last}`);
      skip(revision);
      const row = of.find((one) => one.revision === revision);
      if (row === undefined || row.path !== path || row.type !== type || row.version !== version || row.lease !== lease)
        throw new Error(`revision ${revision} is not what the log says`);
      last = revision;
    }
    if (removed && ENDED.has(type)) state.delete(key);
    else if (ENTERED.has(type) || type === EventType.SECRET_RESTORED) state.set(key, version);
  }
  skip(Infinity);
  const final = stateAt(of, Infinity);
  if (types.length === 0 && text(state) !== text(final)) throw new Error(`told: ${text(state)}; is: ${text(final)}`);
}

/** Path or lease → current version, 0 for leases, as the log says, at a revision. */
export function stateAt(rows: readonly Row[], revision: number): Map<string, number> {
  const state = new Map<string, number>();
  for (const row of rows) {
    if (row.revision > revision) break;
    if (row.removed && ENDED.has(row.type)) state.delete(keyOf(row));
    else if (ENTERED.has(row.type) || row.type === EventType.SECRET_RESTORED) state.set(keyOf(row), row.version);
  }
  return state;
}

function text(state: ReadonlyMap<string, number>): string {
  return [...state]
    .map(([path, version]) => `${path}@${version}`)
    .sort()
    .join(" ");
}
