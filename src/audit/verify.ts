import { createHash, hash } from "node:crypto";
import { batchesAfter, chainlessRecords, chains, type ChainRow, recordsBetween, type SignedHead, signedHeads } from "../store/audit.ts";
import type { Db } from "../store/db.ts";
import { SIGNATURE_ALGORITHM, verifySignature } from "./process-key.ts";

export type ProblemKind = "edited" | "missing" | "reordered" | "truncated" | "bad_signature" | "unknown_key";

export interface Problem {
  readonly chain: string;
  readonly sequence: number;
  readonly kind: ProblemKind;
  readonly detail: string;
}

export interface Verification {
  readonly chains: number;
  readonly records: number;
  /** Records after the last signed head of chains that did not end properly. */
  readonly unsignedTail: number;
  readonly problems: readonly Problem[];
}

const MAX_PROBLEMS = 1000;
const BATCHES = 200;

interface Claim {
  readonly chain: string;
  readonly last_seq: number;
  readonly head: string;
  readonly by: string;
}

/**
 * Walks every chain from its opening: statement signed by the KMS, records hash to the heads, signed heads are where they were, the end is the end, and what other
 * chains have signed about this one still holds (so a chain can't be cut or taken away whole). @param anchor the KMS's raw public key.
 */
export async function verifyAudit(db: Db, anchor: Uint8Array, only = ""): Promise<Verification> {
  const rows = await chains(db);
  // Signed heads first: what they speak of was committed before, so a chain that grows meanwhile can't look cut.
  const signed = new Map<string, SignedHead[]>();
  for (const row of rows) signed.set(row.chain, await signedHeads(db, row.chain));
  const known = new Map<string, Map<number, string>>();
  const claims = new Map<string, Claim>();
  const problems: Problem[] = [];
  let records = 0;
  let unsignedTail = 0;
  for (const row of rows) {
    const walked = await walk(db, row, anchor, signed.get(row.chain) ?? [], claims, only === "" || only === row.chain);
    known.set(row.chain, walked.heads);
    if (only !== "" && only !== row.chain) continue;
    problems.push(...walked.problems);
    records += walked.records;
    unsignedTail += walked.unsignedTail;
  }
  for (const chain of await chainlessRecords(db))
    if (only === "" || only === chain) problems.push(problem(chain, 0, "missing", "the chain is gone, but records of it are left"));
  for (const claim of claims.values()) {
    if (only !== "" && only !== claim.chain) continue;
    const heads = known.get(claim.chain);
    if (heads === undefined) problems.push(problem(claim.chain, claim.last_seq, "missing", `the chain is gone, but ${claim.by} signed its head`));
    else if (claim.head !== "" && heads.get(claim.last_seq) !== claim.head) {
      problems.push(problem(claim.chain, claim.last_seq, heads.has(claim.last_seq) ? "edited" : "truncated", `${claim.by} signed another head here`));
    }
  }
  return {
    chains: only === "" ? rows.length : rows.filter((row) => row.chain === only).length,
    records,
    unsignedTail,
    problems: problems.slice(0, MAX_PROBLEMS),
  };
}

interface Walked {
  /** Last sequence of each batch → its head, as recomputed. */
  readonly heads: Map<number, string>;
  readonly problems: Problem[];
  readonly records: number;
  readonly unsignedTail: number;
}

async function walk(db: Db, row: ChainRow, anchor: Uint8Array, signed: readonly SignedHead[], claims: Map<string, Claim>, deep: boolean): Promise<Walked> {
  const problems: Problem[] = [];
  const opening = parse(row.opening);
  if (!verifySignature(anchor, row.opening, row.openingSignature))
    problems.push(problem(row.chain, 0, "bad_signature", "the opening is not signed by this KMS"));
  if (opening["algorithm"] !== SIGNATURE_ALGORITHM || opening["chain"] !== row.chain)
    problems.push(problem(row.chain, 0, "unknown_key", "the opening is of another chain or algorithm"));
  const key = Buffer.from(typeof opening["public_key"] === "string" ? opening["public_key"] : "", "base64");
  addClaims(claims, opening["heads"], row.chain);

  let head = hash("sha256", row.opening);
  const heads = new Map<number, string>([[0, head]]);
  let last = 0;
  let batch = 0;
  for (;;) {
    const page = await batchesAfter(db, row.chain, batch, BATCHES);
    if (page.length === 0) break;
    const texts = deep ? await recordsBetween(db, row.chain, last, page.at(-1)!.lastSeq) : [];
    let at = 0;
    for (const next of page) {
      if (next.batch !== batch + 1) problems.push(problem(row.chain, last + 1, "missing", `batches ${batch + 1} to ${next.batch - 1} are gone`));
      if (deep) {
        const mine: string[] = [];
        for (; at < texts.length && texts[at]!.seq <= next.lastSeq; at++) {
          const { seq, text } = texts[at]!;
          if (seq !== last + mine.length + 1) problems.push(problem(row.chain, last + mine.length + 1, "missing", "a record is gone"));
          if (parse(text)["seq"] !== seq) problems.push(problem(row.chain, seq, "reordered", "the record says another place"));
          mine.push(text);
        }
        if (mine.length < next.lastSeq - last) problems.push(problem(row.chain, last + mine.length + 1, "missing", "records are gone"));
        const computed = createHash("sha256")
          .update(Buffer.from(head, "hex"))
          .update(`[${mine.join(",")}]`)
          .digest("hex");
        if (computed !== next.head) problems.push(problem(row.chain, last + 1, "edited", `records ${last + 1} to ${next.lastSeq} do not hash to their head`));
      }
      head = next.head;
      last = next.lastSeq;
      batch = next.batch;
      heads.set(last, head);
    }
  }
  if (deep) problems.push(...(await strays(db, row.chain, last)));

  let signedTo = 0;
  for (const mark of signed) {
    const text = parse(mark.signedText);
    if (!verifySignature(key, mark.signedText, mark.signature))
      problems.push(problem(row.chain, mark.lastSeq, "bad_signature", "a signed head's signature is wrong"));
    else if (heads.get(Number(text["last_seq"])) !== text["head"]) {
      problems.push(
        problem(row.chain, Number(text["last_seq"]), Number(text["last_seq"]) > last ? "truncated" : "edited", "the head here is not the one that was signed"),
      );
    }
    signedTo = Math.max(signedTo, Number(text["last_seq"]));
    addClaims(claims, text["others"], row.chain);
  }
  if (row.closing !== undefined) {
    const end = parse(row.closing);
    const own = end["closed_by"] === row.chain;
    if (!verifySignature(own ? key : anchor, row.closing, row.closingSignature ?? new Uint8Array()))
      problems.push(problem(row.chain, last, "bad_signature", "the end's signature is wrong"));
    else if (Number(end["last_seq"]) !== last || (last > 0 && end["head"] !== head))
      problems.push(problem(row.chain, last, "truncated", "the chain was signed to end elsewhere"));
    else signedTo = last;
  }
  return { heads, problems, records: last, unsignedTail: Math.max(0, last - signedTo) };
}

/** Records beyond the last batch were put there by nobody of ours. */
async function strays(db: Db, chain: string, last: number): Promise<Problem[]> {
  const rows = await recordsBetween(db, chain, last, Number.MAX_SAFE_INTEGER);
  return rows.length === 0 ? [] : [problem(chain, last + 1, "edited", "records without a batch")];
}

function addClaims(claims: Map<string, Claim>, value: unknown, by: string): void {
  if (!Array.isArray(value)) return;
  for (const item of value as { chain?: unknown; last_seq?: unknown; head?: unknown }[]) {
    const claim = { chain: String(item.chain), last_seq: Number(item.last_seq), head: String(item.head), by };
    claims.set(`${claim.chain} ${claim.last_seq} ${claim.head}`, claim);
  }
}

function parse(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return {};
  }
}

function problem(chain: string, sequence: number, kind: ProblemKind, detail: string): Problem {
  return { chain, sequence, kind, detail };
}
