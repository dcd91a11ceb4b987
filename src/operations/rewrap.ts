import { isReason, LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { keyIdOf, open, seal } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { Db } from "../store/db.ts";
import { countOldSeals, oldSeals, replaceSeal, type RewrapCursor, type SealedRow } from "../store/rewrap.ts";
import type { Work } from "./operations.ts";

const BATCH = 200;

interface Cursor {
  readonly after: RewrapCursor;
  /** Rows that do not open: left as they are. */
  readonly damaged: number;
}

/**
 * Seals every row anew with the newest seed. A row that changes meanwhile is left: whoever changed it sealed it with the newest seed. One that does not open is left too, and
 * makes the whole a failure at the end, once all others are done. Can be cut off and begun again at any point.
 */
export function rewrapWork(db: Db, keyring: Keyring, log: Log): Work {
  return {
    kind: "rewrap",
    async step(_operation, progress) {
      await keyring.unseal();
      const { id } = keyring.active();
      const cursor = (progress.cursor ?? undefined) as Cursor | undefined;
      const rows = await oldSeals(db, id, cursor?.after, BATCH);
      const last = rows.at(-1);
      if (last === undefined) {
        if (cursor !== undefined && cursor.damaged > 0) throw new LeaseholdError("INTERNAL", `${cursor.damaged} rows do not open`);
        return undefined;
      }
      const total = cursor === undefined ? await countOldSeals(db, id) : progress.total;
      let damaged = cursor?.damaged ?? 0;
      for (const row of rows) if (!(await rewrapRow(db, keyring, row, log))) damaged++;
      const after = { kind: last.kind, uid: last.uid, version: last.version };
      const done = progress.done + rows.length;
      return { cursor: { after, damaged } satisfies Cursor, done, total: Math.max(total, done) };
    },
  };
}

/** Answers false for a row that does not open though the keyring is open. */
async function rewrapRow(db: Db, keyring: Keyring, row: SealedRow, log: Log): Promise<boolean> {
  // A candidate becomes the target's password as it is.
  const kind = row.kind === "candidate" ? "target" : row.kind;
  const binding = { namespaceId: 1, kind, rowUid: row.uid, version: row.version } as const;
  try {
    const plaintext = await open(keyring, row.sealed, binding);
    const sealed = seal(keyring, binding, plaintext);
    plaintext.fill(0);
    await replaceSeal(db, row, sealed, keyIdOf(sealed));
    return true;
  } catch (error) {
    if (!isReason(error, "SEALED") || keyring.sealed) throw error;
    log.error({ kind: row.kind, uid: row.uid, version: row.version }, "a sealed row does not open; it is left as it is");
    return false;
  }
}
