import type { Client } from "../../src/client/client.ts";
import { type Followed, follow } from "../../src/client/follow.ts";
import { EventType } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import type { Row } from "./oracle-log.ts";
import { covers, type Wish } from "./oracle-watcher.ts";

/** A watcher that leaves everything to the client helper, which tells each event once. */
export class ClientWatcher {
  readonly name: string;
  readonly wish: Wish;
  readonly told: Followed[] = [];
  readonly doing = "follows";
  failure: Error | undefined;
  position = -1;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;

  constructor(name: string, wish: Wish, client: Client) {
    [this.name, this.wish] = [name, wish];
    this.#done = this.#run(client).catch((error: unknown) => {
      this.failure = error instanceof Error ? error : new Error(String(error));
    });
  }

  settle(): void {
    // It never left by itself.
  }

  async end(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #run(client: Client): Promise<void> {
    for await (const told of follow(client, { ...this.wish, signal: this.#stop.signal })) {
      this.told.push(told);
      const revision = told.kind === "event" ? told.event.revision : told.revision;
      if (told.kind !== "event" || !told.event.snapshot) this.position = Math.max(this.position, revision);
    }
  }
}

/** Throws when what the helper told is not the log: each change once, in order, but for what a snapshot told instead; differences that are ones; and at the end the state that there is. */
export function verifyClient(watcher: ClientWatcher, rows: readonly Row[]): void {
  const state = new Map<string, number>();
  const of = rows.filter((row) => covers(watcher.wish, row));
  let [at, last] = [-1, -1];
  let [told, gone] = [new Map<string, number>(), new Set<string>()];
  const skip = (to: number): void => {
    for (const row of of.filter(({ revision }) => revision > Math.max(at, last) && revision < to)) {
      const known = row.type === EventType.SECRET_VERSION_CREATED && (told.get(row.path) ?? 0) >= row.version;
      if (!known && !(row.removed && gone.has(row.path)))
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
    if (snapshot) {
      if (at >= 0 && difference === undefined) throw new Error(`${path}: an entry of a second snapshot without a difference`);
      // Who did not ask for removals is not told of them, and then of another creation.
      const asked = watcher.wish.types.length === 0 || watcher.wish.types.includes(EventType.SECRET_DELETED);
      const isNew = difference === "created" || difference === undefined;
      if (isNew ? asked && state.has(path) : !state.has(path)) throw new Error(`${path}: ${difference} is no difference`);
      if (difference === "changed" && state.get(path) === version && watcher.wish.types.length > 0)
        throw new Error(`${path}: told as changed, but is the same`);
      if (removed) gone.add(path);
      else told.set(path, version);
    } else {
      if (revision <= last) throw new Error(`revision ${revision} was told after ${last}`);
      skip(revision);
      const row = of.find((one) => one.revision === revision);
      if (row === undefined || row.path !== path || row.type !== type || row.version !== version)
        throw new Error(`revision ${revision} is not what the log says`);
      last = revision;
    }
    if (removed) state.delete(path);
    else if (type === EventType.SECRET_VERSION_CREATED || type === EventType.SECRET_RESTORED) state.set(path, version);
  }
  skip(Infinity);
  const final = stateAt(of, Infinity);
  if (watcher.wish.types.length === 0 && text(state) !== text(final)) throw new Error(`told: ${text(state)}; is: ${text(final)}`);
}

/** Path → current version, as the log says, at a revision. */
export function stateAt(rows: readonly Row[], revision: number): Map<string, number> {
  const state = new Map<string, number>();
  for (const row of rows) {
    if (row.revision > revision) break;
    if (row.removed) state.delete(row.path);
    else if (row.type === EventType.SECRET_VERSION_CREATED || row.type === EventType.SECRET_RESTORED) state.set(row.path, row.version);
  }
  return state;
}

function text(state: ReadonlyMap<string, number>): string {
  return [...state]
    .map(([path, version]) => `${path}@${version}`)
    .sort()
    .join(" ");
}
