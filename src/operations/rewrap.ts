import { keyIdOf, open, seal } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { Db } from "../store/db.ts";
import { countOldSeals, oldSeals, replaceSeal, type SealedRow } from "../store/rewrap.ts";
import type { Work } from "./operations.ts";

const BATCH = 200;

/**
 * Seals every row anew with the newest seed. A row that changes meanwhile is left: whoever changed it sealed it with the newest seed. Needs no cursor: what is
 * left to do is what still names an older seed, so it can be cut off and begun again at any point.
 */
export function rewrapWork(db: Db, keyring: Keyring): Work {
  return {
    kind: "rewrap",
    async step(_operation, progress) {
      await keyring.unseal();
      const { id } = keyring.active();
      const rows = await oldSeals(db, id, BATCH);
      if (rows.length === 0) return undefined;
      const total = progress.total === 0 ? await countOldSeals(db, id) : progress.total;
      for (const row of rows) {
        await rewrapRow(db, keyring, row);
      }
      return { cursor: null, done: progress.done + rows.length, total: Math.max(total, progress.done + rows.length) };
    },
  };
}

async function rewrapRow(db: Db, keyring: Keyring, row: SealedRow): Promise<void> {
  const binding = { namespaceId: 1, kind: row.kind, rowUid: row.uid, version: row.version } as const;
  const plaintext = await open(keyring, row.sealed, binding);
  const sealed = seal(keyring, binding, plaintext);
  plaintext.fill(0);
  await replaceSeal(db, row, sealed, keyIdOf(sealed));
}
