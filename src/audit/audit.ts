import type { AuditEntry } from "../model/audit.ts";

/**
 * The chain of reads and denials as the pipeline sees it. (Changes are recorded by the committer, in the same transaction as the change.)
 */
export interface AuditWriter {
  /**
   * Calls back once the record is durable, with the newest revision of anything that decides reads (policy, identity, secrets), taken after
   * the record was written: a process that has not applied it must catch up before it releases the value (architecture 4.4).
   * Calls back with AUDIT_UNAVAILABLE when that can't be had within the time limit. A callback, not a promise: this is the hot path.
   */
  append(entry: AuditEntry, done: (error: Error | undefined, freshRevision: number) => void): void;
}
