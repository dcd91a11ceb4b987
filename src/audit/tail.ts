import { sleep, type Clock } from "../base/clock.ts";
import { rangeOf, type PathRange } from "../model/range.ts";
import { parseScope } from "../model/path.ts";
import { lastRecords, positions, recordsBetween, type TailRow } from "../store/audit.ts";
import type { Db } from "../store/db.ts";
import type { StoredRecord } from "./record.ts";

export interface TailFilter {
  /** SPIFFE id or empty. */
  readonly principal: string;
  /** Path, `folder/**`, or empty. */
  readonly path: string;
}

export interface TailedRecord extends StoredRecord {
  readonly chain: string;
}

const POLL_MS = 500;
const MAX_STEP = 5000;

/** The newest `last` records, oldest first; then, until `signal` aborts, new ones as they come. Each chain keeps its own order. */
export async function* tailAudit(db: Db, clock: Clock, filter: TailFilter, last: number, follow: boolean, signal: AbortSignal): AsyncGenerator<TailedRecord[]> {
  const range = filter.path === "" ? undefined : rangeOf(parseScope(filter.path));
  const at = new Map((await positions(db)).map((position) => [position.chain, position.seq]));
  if (last > 0) {
    const rows = await lastRecords(db, last, filter.principal, range?.from ?? "", range?.to ?? "");
    if (rows.length > 0) yield rows.reverse().map(parse);
  }
  while (follow && !signal.aborted) {
    for (const { chain, seq } of await positions(db)) {
      const from = at.get(chain) ?? 0;
      if (seq <= from) continue;
      const to = Math.min(seq, from + MAX_STEP);
      const rows = await recordsBetween(db, chain, from, to);
      at.set(chain, to);
      const found = rows.map((row) => parse({ chain, ...row })).filter((record) => matches(record, filter.principal, range));
      if (found.length > 0) yield found;
    }
    await sleep(clock, POLL_MS, signal);
  }
}

function parse(row: TailRow): TailedRecord {
  return { ...(JSON.parse(row.text) as StoredRecord), chain: row.chain };
}

function matches(record: TailedRecord, principal: string, range: PathRange | undefined): boolean {
  if (principal !== "" && record.principal !== principal) return false;
  return range === undefined || (record.path >= range.from && record.path < range.to);
}
