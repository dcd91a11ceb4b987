import type { PathScope } from "../model/path.ts";
import { intersectRanges, rangeOf } from "../model/range.ts";
import type { RotationRecord } from "../model/rotation.ts";
import type { Db } from "../store/db.ts";
import { listRotations } from "../store/rotations.ts";

/** Rows looked at for one page at most; a page may be short (finding 32). */
const MAX_SCANNED = 10_000;
const CHUNK = 500;

export interface RotationQuery {
  /** Of secrets' paths. */
  readonly scope: PathScope;
  /** Secrets outside of which the caller certainly may not list rotations. */
  readonly allowed: readonly PathScope[];
  /** The exact decision, row by row. */
  readonly may: (secretPath: string) => boolean;
  readonly stuck: boolean;
  /** Last path of the page before; empty for the first. */
  readonly after: string;
  readonly pageSize: number;
}

/** Rotations in path order that the caller may see. */
export async function listVisibleRotations(
  db: Db,
  query: RotationQuery,
): Promise<{ readonly items: readonly RotationRecord[]; readonly next: string | undefined }> {
  const items: RotationRecord[] = [];
  let after = query.after;
  let scanned = 0;
  for (const range of intersectRanges(rangeOf(query.scope), query.allowed.map(rangeOf))) {
    if (range.to <= after) continue;
    for (;;) {
      // oxlint-disable-next-line no-await-in-loop -- page by page
      const rows = await listRotations(db, range, after, query.stuck, CHUNK);
      for (const row of rows) {
        scanned++;
        after = row.path;
        if (query.may(row.path)) items.push(row);
        if (items.length >= query.pageSize || scanned >= MAX_SCANNED) return { items, next: after };
      }
      if (rows.length < CHUNK) break;
    }
  }
  return { items, next: undefined };
}
