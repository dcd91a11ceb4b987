import { EventType } from "../../src/gen/leasehold/v1/watch_service_pb.ts";
import { stateAt } from "./oracle-client-watcher.ts";
import { keyOf, type Row } from "./oracle-log.ts";
import { covers, type RawWatcher, type Segment, type Told, type Wish } from "./oracle-watcher.ts";

/** Who may see what, since when: a policy is in force from its revision to the next one's. */
export interface Rights {
  readonly policies: readonly { readonly revision: number; allows(path: string): boolean }[];
}

/** Throws when what a watcher was told is not the log: all of it between two places, in order, no place ahead of the data, and nothing that no policy since allowed. @param rights undefined: may see everything.
 * @param values what was written, by revision. */
export function verifyRaw(watcher: RawWatcher, rows: readonly Row[], rights: Rights | undefined, values: ReadonlyMap<number, string>): void {
  for (const segment of watcher.segments) {
    const to = Math.max(segment.places.at(-1)?.revision ?? segment.from, segment.told.at(-1)?.revision ?? 0);
    const expected = rows.filter((row) => row.revision > segment.from && row.revision <= to && covers(watcher.wish, row));
    const must = rights === undefined ? expected : expected.filter((row) => inForce(rights, row.revision).every((policy) => policy.allows(row.path)));
    const byRevision = new Map(expected.map((row) => [row.revision, row]));
    for (const told of segment.told) {
      const row = byRevision.get(told.revision);
      if (row === undefined || row.path !== told.path || row.type !== told.type || row.version !== told.version || row.lease !== told.lease)
        throw new Error(`told ${JSON.stringify(told)}, the log says ${JSON.stringify(row)}`);
      if (told.value !== undefined && !valuesOf(row, rows, values).includes(told.value))
        throw new Error(`${told.path}@${told.version} at ${told.revision}: another version's value`);
      if (rights !== undefined && !mayHaveBeenTold(rights, told)) throw new Error(`told ${told.path} at ${told.revision}, which no policy since then allowed`);
    }
    const given = new Set(segment.told.map(({ revision }) => revision));
    const missing = must.find(({ revision }) => !given.has(revision));
    if (missing !== undefined) throw new Error(`${describe(segment)}: revision ${missing.revision} (${missing.path}, type ${missing.type}) was never told`);
    checkPlaces(segment, must);
    if (segment.entries !== undefined && rights === undefined) checkEntries(segment, segment.entries, watcher.wish, rows);
  }
}

/** What an event may carry: what was written then; or, where the secret was erased and made again since, what that version is now. */
function valuesOf({ path, version, revision }: Row, rows: readonly Row[], values: ReadonlyMap<number, string>): (string | undefined)[] {
  return rows.filter((row) => row.path === path && row.version === version && row.revision >= revision).map((row) => values.get(row.revision));
}

/** "Everything up to here was sent" must be so when it is said. */
function checkPlaces(segment: Segment, must: readonly Row[]): void {
  const order = new Map(segment.told.map(({ revision }, i) => [revision, i]));
  for (const place of segment.places) {
    const ahead = must.find((row) => row.revision <= place.revision && order.get(row.revision)! >= place.told);
    if (ahead !== undefined) throw new Error(`${describe(segment)}: place ${place.revision} was told before revision ${ahead.revision}`);
  }
}

/** What there was at the snapshot's revision is in it, as it was or newer, unless it was removed since. */
function checkEntries(segment: Segment, entries: ReadonlyMap<string, number>, wish: Wish, rows: readonly Row[]): void {
  const all = { paths: wish.paths, types: [] };
  const own = rows.filter((row) => covers(all, row));
  for (const [key, version] of stateAt(own, segment.from)) {
    // Single leases are listed by no snapshot.
    if (wish.paths.includes(key) && key.startsWith("leases/")) continue;
    const type = key.startsWith("leases/") ? EventType.LEASE_ISSUED : EventType.SECRET_VERSION_CREATED;
    if (wish.types.length > 0 && !wish.types.includes(type)) continue;
    if (own.some((row) => keyOf(row) === key && row.revision > segment.from && row.removed)) continue;
    if ((entries.get(key) ?? -1) < version) throw new Error(`${describe(segment)}: the snapshot has ${key}@${entries.get(key)}, which was at ${version}`);
  }
  for (const [key, version] of entries)
    if (!own.some((row) => keyOf(row) === key && row.version >= version)) throw new Error(`the snapshot has ${key}@${version}, which never was`);
}

function inForce({ policies }: Rights, revision: number): Rights["policies"] {
  return policies.filter((_policy, i) => (policies[i + 1]?.revision ?? Infinity) > revision);
}

/** Some policy that was in force at the change or after it, and was on its way when the event came, allows it. */
function mayHaveBeenTold({ policies }: Rights, told: Told): boolean {
  return policies.slice(0, told.policies).some((policy, i) => (policies[i + 1]?.revision ?? Infinity) > told.revision && policy.allows(told.path));
}

function describe({ from, told, places }: Segment): string {
  return `from ${from}, ${told.length} events, last place ${places.at(-1)?.revision}`;
}
