import { LeaseholdError } from "../base/errors.ts";
import type { AuditEntry } from "../model/audit.ts";
import type { AuditWriter } from "./audit.ts";

/** Stands where the audit of reads will be once the keyring is open; until then no record can be written, and nothing is served that would need one. */
export class LateAudit implements AuditWriter {
  ready: AuditWriter | undefined;

  append(entry: AuditEntry, done: (error: Error | undefined, freshRevision: number) => void): void {
    if (this.ready === undefined) done(new LeaseholdError("SEALED"), 0);
    else this.ready.append(entry, done);
  }
}
