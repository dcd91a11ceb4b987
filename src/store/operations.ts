import type { Db } from "./db.ts";

export type OperationState = "RUNNING" | "SUCCEEDED" | "FAILED" | "CANCELLED";

/** Background work that somebody asked for. Times are Unix milliseconds. */
export interface OperationRecord {
  readonly id: string;
  readonly kind: string;
  readonly state: OperationState;
  readonly args: Readonly<Record<string, unknown>>;
  /** Where to go on; null at the start. */
  readonly cursor: unknown;
  readonly done: number;
  readonly total: number;
  readonly problem: string;
  readonly principal: string;
  readonly createdAt: number;
  readonly updatedAt: number;
}

interface Row {
  readonly id: string;
  readonly kind: string;
  readonly state: OperationState;
  readonly args: Record<string, unknown>;
  readonly cursor: unknown;
  readonly done: number;
  readonly total: number;
  readonly problem: string;
  readonly principal: string;
  readonly created_at: Date;
  readonly updated_at: Date;
}

const COLUMNS = "id, kind, state, args, cursor, done, total, problem, principal, created_at, updated_at";
const FIND = { name: "operation_find", text: `select ${COLUMNS} from operation where namespace_id = 1 and id = $1` };
const LIST = { name: "operation_list", text: `select ${COLUMNS} from operation where namespace_id = 1 order by created_at desc, id desc limit $1` };
const CLAIM = {
  name: "operation_claim",
  text: `update operation set claimed_until = clock_timestamp() + $1 * interval '1 ms' where id = (
           select id from operation where state = 'RUNNING' and (claimed_until is null or claimed_until < clock_timestamp()) order by created_at limit 1 for update skip locked)
         returning ${COLUMNS}`,
};
const PROGRESS = {
  name: "operation_progress",
  text: `update operation set cursor = $2::jsonb, done = $3, total = $4, updated_at = clock_timestamp(), claimed_until = clock_timestamp() + $5 * interval '1 ms'
          where id = $1 and state = 'RUNNING' returning id`,
};
const PRUNE = { name: "operation_prune", text: "delete from operation where state <> 'RUNNING' and updated_at < clock_timestamp() - interval '30 days'" };

export async function findOperation(db: Db, id: string): Promise<OperationRecord | undefined> {
  const [row] = await db.query<Row>(FIND, [id]);
  return row === undefined ? undefined : recordOf(row);
}

/** Newest first. */
export async function listOperations(db: Db, limit: number): Promise<OperationRecord[]> {
  const rows = await db.query<Row>(LIST, [limit]);
  return rows.map(recordOf);
}

/** Takes up a running operation that no other worker holds, for `ms`. */
export async function claimOperation(db: Db, ms: number): Promise<OperationRecord | undefined> {
  const [row] = await db.query<Row>(CLAIM, [ms]);
  return row === undefined ? undefined : recordOf(row);
}

/** Keeps how far the work has come, and the claim for another `ms`. Answers false when the operation was cancelled meanwhile. */
export async function saveProgress(db: Db, id: string, cursor: unknown, done: number, total: number, ms: number): Promise<boolean> {
  const rows = await db.query(PROGRESS, [id, JSON.stringify(cursor), done, total, ms]);
  return rows.length === 1;
}

export async function pruneOperations(db: Db): Promise<void> {
  await db.query(PRUNE);
}

function recordOf(row: Row): OperationRecord {
  const { created_at: createdAt, updated_at: updatedAt, ...rest } = row;
  return { ...rest, createdAt: createdAt.getTime(), updatedAt: updatedAt.getTime() };
}
