import type { LeaseRecord } from "../model/lease.ts";
import type { PathScope } from "../model/path.ts";
import { rangeOf } from "../model/range.ts";
import type { Db } from "../store/db.ts";
import { type LeaseCursor, type LeaseFilter, leasePage } from "../store/leases.ts";

/** Rows looked at for one page at most; a page may be short (finding 32). */
const MAX_SCANNED = 10_000;
/** Rows looked at first, and twice as many each time after: most pages are full by then, and finding where 10,000 rows end costs 5 ms. */
const FIRST_LOOK = 1000;
const MIN_CHUNK = 100;
const MAX_CHUNK = 500;

export interface LeaseQuery {
  /** Undefined: everything. */
  readonly scope: PathScope | undefined;
  readonly principal: string;
  readonly states: LeaseFilter["states"];
  readonly stalled: boolean;
  /** Who asks: sees his own leases without any rule. */
  readonly viewer: string;
  /** Role paths outside of which he certainly may not list. */
  readonly allowed: readonly PathScope[];
  /** The exact decision, row by row. */
  readonly may: (lease: LeaseRecord) => boolean;
  readonly after: LeaseCursor | undefined;
  readonly pageSize: number;
}

/** Leases newest first that the caller may see: his own, and those his policy lets him list. */
export async function listVisibleLeases(
  db: Db,
  query: LeaseQuery,
): Promise<{ readonly items: readonly LeaseRecord[]; readonly next: LeaseCursor | undefined }> {
  const filter: LeaseFilter = {
    range: query.scope && rangeOf(query.scope),
    // Who may list nothing looks through his own leases alone.
    principal: query.principal === "" && query.allowed.length === 0 ? query.viewer : query.principal,
    states: query.states,
    stalled: query.stalled,
    viewer: query.viewer,
    allowed: query.allowed.map(rangeOf),
  };
  const chunk = Math.min(MAX_CHUNK, Math.max(query.pageSize, MIN_CHUNK));
  const items: LeaseRecord[] = [];
  let after = query.after;
  for (let seen = 0, look = FIRST_LOOK; ; look *= 2) {
    const width = Math.min(look, MAX_SCANNED - seen);
    const { leases, next } = await leasePage(db, filter, after, chunk, width);
    for (const lease of leases) {
      if (items.length === query.pageSize) return { items, next: after };
      after = { issuedAt: lease.issuedAt, id: lease.id };
      if (query.may(lease)) items.push(lease);
    }
    after = next;
    seen += width;
    if (next === undefined || items.length === query.pageSize || seen >= MAX_SCANNED) return { items, next };
  }
}
