import type { AuditEntry } from "../model/audit.ts";

/**
 * The text of one record of the reads' chain: the same fields as the group committer writes for changes (src/store/group-committer.ts).
 * Built once, hashed and stored as it is. @param peer and @param lease keyed hashes, not the values.
 */
export function recordText(seq: number, entry: AuditEntry & { readonly count?: number }, peer: string | undefined, lease: string | undefined): string {
  return JSON.stringify({
    seq,
    at: entry.at,
    request_id: entry.requestId,
    trace_id: entry.traceId,
    principal: entry.principal,
    action: entry.action,
    capability: entry.capability,
    path: entry.path,
    outcome: entry.outcome,
    version: entry.version,
    lease,
    peer,
    cause: entry.cause,
    count: entry.count,
  });
}

/** A record as it was stored. */
export interface StoredRecord {
  readonly seq: number;
  readonly at: number;
  readonly request_id?: string;
  readonly trace_id?: string;
  readonly principal: string;
  readonly action: string;
  readonly capability?: string;
  readonly path: string;
  readonly outcome: string;
  readonly version?: number;
  readonly revision?: number;
  readonly lease?: string;
  readonly peer?: string;
  readonly cause?: string;
  readonly count?: number;
}
