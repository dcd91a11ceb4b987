import type { LoginRotator } from "./catalog/rotate-login.ts";
import type { TargetGate } from "./leases/gate.ts";
import type { ScanSchedule } from "./leases/scan-schedule.ts";
import { systemActor } from "./model/audit.ts";
import type { Operations } from "./operations/operations.ts";
import type { Job } from "./schedule/jobs.ts";
import type { SecretWriter } from "./secrets/write.ts";
import { ensurePartitions } from "./store/audit.ts";
import { pruneChanges } from "./store/changes.ts";
import type { Db } from "./store/db.ts";
import { pruneLeases, pruneRequests } from "./store/leases.ts";
import { pruneOperations } from "./store/operations.ts";
import { pruneFindings } from "./store/reconcile.ts";
import { purgeableSecrets } from "./store/secrets.ts";
import { pruneMarks } from "./store/sight.ts";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const BATCH = 1000;
const PARTITION_DAYS = 8;

/** What is done at intervals, by every replica; each bears company. @param keepChangesMs how long the change log is kept. */
export function housekeeping(
  db: Db,
  secrets: SecretWriter,
  operations: Operations,
  { gate, scans }: { readonly gate: TargetGate; readonly scans: ScanSchedule },
  logins: LoginRotator,
  keepChangesMs: number,
): Job[] {
  return [
    { name: "purge-secrets", everyMs: 10 * SECOND, run: () => purgeSecrets(db, secrets) },
    {
      name: "operations",
      everyMs: 5 * SECOND,
      run: async () => {
        await scans.begin().finally(() => operations.look());
      },
    },
    { name: "target-logins", everyMs: 30 * SECOND, run: () => logins.resume() },
    { name: "witness", everyMs: 30 * SECOND, run: () => gate.lookAgain() },
    { name: "prune-requests", everyMs: MINUTE, run: () => pruneRequests(db, BATCH) },
    { name: "prune-leases", everyMs: MINUTE, run: () => pruneLeases(db, 5 * BATCH, 10 * SECOND) },
    { name: "prune-changes", everyMs: MINUTE, run: () => pruneChanges(db, keepChangesMs, 10 * BATCH) },
    { name: "prune-operations", everyMs: HOUR, run: () => pruneOperations(db) },
    { name: "prune-findings", everyMs: HOUR, run: () => pruneFindings(db) },
    { name: "prune-marks", everyMs: HOUR, run: () => pruneMarks(db) },
    { name: "audit-partitions", everyMs: HOUR, run: () => ensurePartitions(db, PARTITION_DAYS) },
  ];
}

async function purgeSecrets(db: Db, secrets: SecretWriter): Promise<void> {
  for (const path of await purgeableSecrets(db, BATCH)) await secrets.purge(path, systemActor("secret.purge", "recovery window over"));
}
