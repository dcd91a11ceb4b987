import type { DeadContent, DeadLetterRecord } from "../model/subscription.ts";
import type { Db } from "./db.ts";

interface Row {
  readonly id: string;
  readonly place: number;
  readonly epoch: number;
  readonly revision: number;
  readonly content: DeadContent;
  readonly problem: string;
  readonly attempts: number;
  readonly created_at: Date;
  readonly updated_at: Date;
  readonly replaying: boolean;
}

const COLUMNS = "id, place, epoch, revision, content, problem, attempts, created_at, updated_at, replay_at is not null as replaying";
const PAGE = { name: "dead_letter_page", text: `select ${COLUMNS} from dead_letter where subscription_uid = $1 and place > $2 order by place limit $3` };
const REPLAY = {
  name: "dead_letter_next_replay",
  text: `select ${COLUMNS} from dead_letter where subscription_uid = $1 and replay_at is not null order by place limit 1`,
};

/** Oldest first, after the place of the one before. */
export async function deadLetterPage(db: Db, subscriptionUid: string, after: number, limit: number): Promise<DeadLetterRecord[]> {
  const rows = await db.query<Row>(PAGE, [subscriptionUid, after, limit]);
  return rows.map(recordOf);
}

/** The oldest one that is to be delivered once more. */
export async function nextReplay(db: Db, subscriptionUid: string): Promise<DeadLetterRecord | undefined> {
  const [row] = await db.query<Row>(REPLAY, [subscriptionUid]);
  return row === undefined ? undefined : recordOf(row);
}

function recordOf({ created_at: createdAt, updated_at: updatedAt, ...row }: Row): DeadLetterRecord {
  return { ...row, createdAt: createdAt.getTime(), updatedAt: updatedAt.getTime() };
}
