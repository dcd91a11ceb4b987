import { LeaseholdError } from "../base/errors.ts";
import { intersectRanges, rangeOf, type PathRange } from "../model/range.ts";
import type { PathScope } from "../model/path.ts";
import type { SecretMeta, VersionMeta } from "../model/secret.ts";
import type { Db } from "../store/db.ts";
import { findSecret, listSecrets, listVersions } from "../store/secrets.ts";

/** Rows looked at for one page at most; a page may be short (finding 32). */
const MAX_SCANNED = 10_000;
const CHUNK = 500;

export interface ListQuery {
  readonly scope: PathScope;
  /** Outside of these the caller certainly may not list anything. */
  readonly allowed: readonly PathScope[];
  /** The exact decision, row by row. */
  readonly may: (path: string) => boolean;
  readonly showDeleted: boolean;
  /** Last path of the page before; empty for the first. */
  readonly after: string;
  readonly pageSize: number;
}

export interface Page<T> {
  readonly items: readonly T[];
  /** Where the next page begins; undefined on the last. */
  readonly next: string | undefined;
}

/** Metadata of secrets in path order. What the caller may not list is neither shown nor told. */
export async function listVisibleSecrets(db: Db, query: ListQuery): Promise<Page<SecretMeta>> {
  const ranges: PathRange[] = intersectRanges(rangeOf(query.scope), query.allowed.map(rangeOf));
  const items: SecretMeta[] = [];
  let after = query.after;
  let scanned = 0;
  for (const range of ranges) {
    if (range.to <= after) continue;
    for (;;) {
      const rows = await listSecrets(db, range, after, query.showDeleted, CHUNK);
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

/** Throws SECRET_NOT_FOUND. A deleted secret is described as long as it can be restored. */
export async function describeSecret(db: Db, path: string): Promise<SecretMeta> {
  const secret = await findSecret(db, path);
  if (secret === undefined) throw new LeaseholdError("SECRET_NOT_FOUND");
  return secret;
}

/** Versions newest first, below `before`. */
export async function pageOfVersions(db: Db, secret: SecretMeta, before: number, pageSize: number): Promise<Page<VersionMeta>> {
  const rows = await listVersions(db, secret.uid, before, pageSize + 1);
  const items = rows.slice(0, pageSize);
  return { items, next: rows.length > pageSize ? String(items.at(-1)!.version) : undefined };
}
