import type { PolicyDocument } from "../model/policy.ts";
import type { Db } from "./db.ts";

/** A policy as stored. Times are Unix milliseconds. */
export interface PolicyRecord {
  readonly uid: string;
  readonly document: PolicyDocument;
  /** For people; not part of what is compiled. */
  readonly description: string;
  readonly generation: number;
  readonly updatedAt: number;
  readonly updatedBy: string;
}

interface Row {
  readonly uid: string;
  readonly name: string;
  readonly document: Omit<PolicyDocument, "name"> & { readonly description?: string };
  readonly generation: number;
  readonly updated_at: Date;
  readonly updated_by: string;
}

const COLUMNS = "uid, name, document, generation, updated_at, updated_by";
const PAGE = { name: "policy_page", text: `select ${COLUMNS} from policy where namespace_id = 1 and name > $1 order by name limit $2` };
const SOME = { name: "policy_some", text: `select ${COLUMNS} from policy where namespace_id = 1 and name = any ($1::text[])` };
const ANY = { name: "policy_any", text: "select exists (select from policy where namespace_id = 1) as found" };

/** In name order, after `after`. */
export async function policyPage(db: Db, after: string, limit: number): Promise<PolicyRecord[]> {
  const rows = await db.query<Row>(PAGE, [after, limit]);
  return rows.map(recordOf);
}

export async function policiesNamed(db: Db, names: readonly string[]): Promise<PolicyRecord[]> {
  const rows = await db.query<Row>(SOME, [names]);
  return rows.map(recordOf);
}

export async function hasPolicies(db: Db): Promise<boolean> {
  const [row] = await db.query<{ found: boolean }>(ANY);
  return row!.found;
}

function recordOf(row: Row): PolicyRecord {
  const { description, ...document } = row.document;
  return {
    uid: row.uid,
    document: { name: row.name, ...document },
    description: description ?? "",
    generation: row.generation,
    updatedAt: row.updated_at.getTime(),
    updatedBy: row.updated_by,
  };
}
