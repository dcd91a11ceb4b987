import type { Db } from "./db.ts";

const SIGHT = {
  name: "sight_of",
  text: `select n::float8 as place, address, system_identifier as "systemIdentifier", timeline::float8 as timeline,
           greatest(extract(epoch from leasehold_now() - seen_at) * 1000, 0)::float8 as "ageMs" from target_sight where target_uid = $1`,
};
const PLACE = { name: "witness_place", text: "select n::float8 as place from witness_mark where mark::text = $1" };

export interface SightRow {
  readonly place: number;
  readonly address: string;
  readonly systemIdentifier: string;
  readonly timeline: number;
  readonly ageMs: number;
}

/** What was last seen of a target; undefined: it was never looked at. */
export async function sightOf(db: Db, targetUid: string): Promise<SightRow | undefined> {
  const [row] = await db.query<SightRow>(SIGHT, [targetUid]);
  return row;
}

/** A mark's place in the order of this ledger's marks, for whichever of its targets: two of them may be one server. Undefined: this ledger never wrote it. */
export async function placeOfMark(db: Db, mark: string): Promise<number | undefined> {
  const [row] = await db.query<{ place: number }>(PLACE, [mark]);
  return row?.place;
}

const PRUNE = {
  name: "witness_prune",
  text: "delete from witness_mark m where at < leasehold_now() - interval '10 days' and not exists (select from target x where x.uid = m.target_uid)",
};

/** Forgets the marks of targets that were deleted; those of the others are forgotten when the next one is made. */
export async function pruneMarks(db: Db): Promise<void> {
  await db.query(PRUNE);
}
