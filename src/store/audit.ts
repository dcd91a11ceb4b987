import type { Db } from "./db.ts";

export type ChainKind = "changes" | "reads";

export interface ChainRow {
  readonly chain: string;
  readonly kind: ChainKind;
  readonly processId: string;
  /** Exact text of the opening statement. */
  readonly opening: string;
  readonly openingSignature: Uint8Array;
  readonly closing: string | undefined;
  readonly closingSignature: Uint8Array | undefined;
}

/** Where a chain stands: its newest batch, or its opening. */
export interface ChainHead {
  readonly chain: string;
  readonly batch: number;
  readonly lastSeq: number;
  /** Hexadecimal; empty before the first batch. */
  readonly head: string;
}

const OPEN = {
  name: "audit_open",
  text: "insert into audit_chain (chain, kind, process_id, opening, opening_signature) values ($1, $2, $3, $4::json, $5)",
};

export async function insertChain(db: Db, row: Omit<ChainRow, "closing" | "closingSignature">): Promise<void> {
  await db.query(OPEN, [row.chain, row.kind, row.processId, row.opening, Buffer.from(row.openingSignature)]);
}

const ALIVE = { name: "audit_alive", text: "update audit_chain set alive_at = clock_timestamp() where chain = any ($1::text[]) and closing is null" };

/** The heartbeat of a process's chains: one that stops without closing them is closed by another process. */
export async function touchChains(db: Db, chains: readonly string[]): Promise<void> {
  await db.query(ALIVE, [chains]);
}

const CLOSE = {
  name: "audit_close",
  text: "update audit_chain set closing = $2::json, closing_signature = $3 where chain = $1 and closing is null",
};

export async function closeChain(db: Db, chain: string, closing: string, signature: Uint8Array): Promise<void> {
  await db.query(CLOSE, [chain, closing, Buffer.from(signature)]);
}

const HEADS = {
  name: "audit_heads",
  text: `select c.chain, coalesce(b.batch, 0) as batch, coalesce(b.last_seq, 0) as "lastSeq", coalesce(encode(b.head, 'hex'), '') as head
           from audit_chain c left join lateral (select batch, last_seq, head from audit_batch where chain = c.chain order by batch desc limit 1) b on true
          where c.closing is null and ($1 = '' or c.alive_at < clock_timestamp() - $1::interval) order by c.chain`,
};

/** Heads of the chains that are not closed. */
export function liveHeads(db: Db): Promise<ChainHead[]> {
  return db.query<ChainHead>(HEADS, [""]);
}

/** Heads of the chains whose process has not been seen for `seconds`. */
export function abandonedHeads(db: Db, seconds: number): Promise<ChainHead[]> {
  return db.query<ChainHead>(HEADS, [`${seconds} seconds`]);
}

const SIGN = {
  name: "audit_sign",
  text: `insert into audit_head (chain, batch, last_seq, head, signed_text, signature)
           values ($1, $2, $3, decode($4, 'hex'), $5, $6) on conflict do nothing`,
};

export async function insertSignedHead(db: Db, head: ChainHead, signedText: string, signature: Uint8Array): Promise<void> {
  await db.query(SIGN, [head.chain, head.batch, head.lastSeq, head.head, signedText, Buffer.from(signature)]);
}

const CHAINS = {
  name: "audit_chains",
  text: `select chain, kind, process_id as "processId", opening::text as opening, opening_signature as "openingSignature", closing::text as closing,
           closing_signature as "closingSignature" from audit_chain where $1 = '' or chain = $1 order by opened_at, chain`,
};

export async function chains(db: Db, chain = ""): Promise<ChainRow[]> {
  const rows = await db.query<{ [K in keyof ChainRow]: ChainRow[K] | null }>(CHAINS, [chain]);
  return rows.map((row) => ({ ...row, closing: row.closing ?? undefined, closingSignature: row.closingSignature ?? undefined }) as ChainRow);
}

const BATCHES = {
  name: "audit_batches",
  text: `select batch, last_seq as "lastSeq", encode(head, 'hex') as head from audit_batch where chain = $1 and batch > $2 order by batch limit $3`,
};

export function batchesAfter(
  db: Db,
  chain: string,
  batch: number,
  limit: number,
): Promise<{ readonly batch: number; readonly lastSeq: number; readonly head: string }[]> {
  return db.query(BATCHES, [chain, batch, limit]);
}

const RECORDS = {
  name: "audit_records",
  text: "select seq, record::text as text from audit_record where chain = $1 and seq > $2 and seq <= $3 order by seq",
};

/** Exact texts of records after `after` up to `to`. */
export function recordsBetween(db: Db, chain: string, after: number, to: number): Promise<{ readonly seq: number; readonly text: string }[]> {
  return db.query(RECORDS, [chain, after, to]);
}

const SIGNED = {
  name: "audit_signed_heads",
  text: `select batch, last_seq as "lastSeq", encode(head, 'hex') as head, signed_text as "signedText", signature from audit_head where chain = $1 order by batch`,
};

export interface SignedHead {
  readonly batch: number;
  readonly lastSeq: number;
  readonly head: string;
  readonly signedText: string;
  readonly signature: Uint8Array;
}

export function signedHeads(db: Db, chain: string): Promise<SignedHead[]> {
  return db.query<SignedHead>(SIGNED, [chain]);
}

const CHAINLESS = {
  name: "audit_chainless",
  text: "select distinct b.chain from audit_batch b where not exists (select from audit_chain c where c.chain = b.chain)",
};

/** Chains whose opening is gone, though batches of theirs are there. */
export async function chainlessRecords(db: Db): Promise<string[]> {
  const rows = await db.query<{ chain: string }>(CHAINLESS);
  return rows.map((row) => row.chain);
}

const LAST = {
  name: "audit_last",
  text: `select r.chain, r.seq, r.record::text as text from audit_record r where r.day >= (clock_timestamp() at time zone 'UTC')::date - 1
           and ($2 = '' or r.record->>'principal' = $2) and ($3 = '' or r.record->>'path' >= $3 collate "C") and ($4 = '' or r.record->>'path' < $4 collate "C")
          order by (r.record->>'at')::bigint desc, r.chain desc, r.seq desc limit $1`,
};

export interface TailRow {
  readonly chain: string;
  readonly seq: number;
  readonly text: string;
}

/** The newest records since yesterday, newest first. */
export function lastRecords(db: Db, limit: number, principal: string, from: string, to: string): Promise<TailRow[]> {
  return db.query<TailRow>(LAST, [limit, principal, from, to]);
}

const POSITIONS = {
  name: "audit_positions",
  text: `select c.chain, coalesce((select max(last_seq) from audit_batch b where b.chain = c.chain), 0) as seq from audit_chain c where c.closing is null or c.alive_at > clock_timestamp() - interval '5 minutes'`,
};

/** How far each recent chain has come. */
export function positions(db: Db): Promise<{ readonly chain: string; readonly seq: number }[]> {
  return db.query(POSITIONS);
}

const PARTITIONS = { name: "audit_partitions", text: "select ensure_audit_partitions($1) as made" };

/** Makes the daily partitions of the days ahead. */
export async function ensurePartitions(db: Db, days: number): Promise<void> {
  await db.query(PARTITIONS, [days]);
}
