import { misconfigured } from "../own-login.ts";
import { quoteLiteral } from "./quote.ts";
import type { Session } from "./sessions.ts";

const MAX_TRIES = 5;
const WAIT_SECONDS = 1;

/**
 * Runs `work` while this session alone holds the name's lock. Any account may take any lock, a lease too: a holder that is not the broker is
 * thrown out, so that no lease can put off its own end. Throws TARGET_MISCONFIGURED `locked` when a session of the broker's keeps it too long.
 */
export async function underLock<T>(session: Session, name: string, work: () => Promise<T>): Promise<T> {
  const lock = quoteLiteral(`leasehold:${name}`);
  await take(session, lock);
  const result = await work(); // a failed session is discarded, and its lock with it
  await session.rows(`DO RELEASE_LOCK(${lock})`);
  return result;
}

async function take(session: Session, lock: string): Promise<void> {
  for (let i = 0; i < MAX_TRIES; i++) {
    /* oxlint-disable no-await-in-loop -- the next try depends on this one */
    const [row] = await session.rows<{ got: number | null }>(`SELECT GET_LOCK(${lock}, ${WAIT_SECONDS}) AS got`);
    if (row?.got === 1) return;
    const holders = await session.rows<{ id: number }>(
      `SELECT ID AS id FROM information_schema.PROCESSLIST WHERE ID = IS_USED_LOCK(${lock}) AND USER <> SUBSTRING_INDEX(USER(), '@', 1)`,
    );
    for (const { id } of holders) await kill(session, id);
    /* oxlint-enable no-await-in-loop */
  }
  throw misconfigured("locked");
}

/** Ends a session; one that has gone by itself is as well. */
export async function kill(session: Session, id: number): Promise<void> {
  try {
    await session.rows(`KILL CONNECTION ${id}`);
  } catch (error) {
    if ((error as { code?: unknown }).code !== "ER_NO_SUCH_THREAD") throw error;
  }
}
