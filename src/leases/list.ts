import type { PathScope } from "../model/path.ts";
import type { LeaseRecord } from "../model/lease.ts";
import { rangeOf } from "../model/range.ts";
import type { Db } from "../store/db.ts";
import { type LeaseCursor, type LeaseFilter, leasePage } from "../store/leases.ts";

const MAX_SCANNED = 10_000;
const CHUNK = 500;

export interface LeaseQuery {
  /** Undefined: everything. */
  readonly scope: PathScope | undefined;
  readonly principal: string;
  readonly states: LeaseFilter["states"];
  readonly stalled: boolean;
  /** The exact decision, row by row. */
  readonly may: (lease: LeaseRecord) => boolean;
  readonly after: LeaseCursor | undefined;
  readonly pageSize: number;
}

/** Leases newest first that the caller may see: his own, and those his policy lets him list. At most 10,000 rows are looked at for a page. */
export async function listVisibleLeases(db: Db, query: LeaseQuery): Promise<{ readonly items: readonly LeaseRecord[]; readonly next: LeaseCursor | undefined }> {
  const filter: LeaseFilter = {
    range: query.scope === undefined ? undefined : rangeOf(query.scope),
    principal: query.principal,
    states: query.states,
    stalled: query.stalled,
  };
  const items: LeaseRecord[] = [];
  let after = query.after;
  for (let scanned = 0; scanned < MAX_SCANNED; ) {
    const rows = await leasePage(db, filter, after, CHUNK);
    for (const row of rows) {
      scanned++;
      after = { issuedAt: row.issuedAt, id: row.id };
      if (query.may(row)) items.push(row);
      if (items.length >= query.pageSize) return { items, next: after };
    }
    if (rows.length < CHUNK) return { items, next: undefined };
  }
  return { items, next: after };
}
