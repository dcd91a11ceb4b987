import type { LoginRotator } from "./catalog/rotate-login.ts";
import type { TargetGate } from "./leases/gate.ts";
import { systemActor } from "./model/audit.ts";
import type { Operations } from "./operations/operations.ts";
import type { Job } from "./schedule/jobs.ts";
import type { SecretWriter } from "./secrets/write.ts";
import { ensurePartitions } from "./store/audit.ts";
import { pruneChanges } from "./store/changes.ts";
import type { Db } from "./store/db.ts";
import { pruneLeases, pruneRequests } from "./store/leases.ts";
import { pruneOperations } from "./store/operations.ts";
import { purgeableSecrets } from "./store/secrets.ts";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const BATCH = 1000;
const PARTITION_DAYS = 8;

/** What is done at intervals, by every replica; each bears company. @param keepChangesMs how long the change log is kept. */
export function housekeeping(db: Db, secrets: SecretWriter, operations: Operations, gate: TargetGate, logins: LoginRotator, keepChangesMs: number): Job[] {
  return [
    { name: "purge-secrets", everyMs: 10 * SECOND, run: () => purgeSecrets(db, secrets) },
    { name: "operations", everyMs: 5 * SECOND, run: async () => operations.look() },
    { name: "target-logins", everyMs: 30 * SECOND, run: () => logins.resume() },
    { name: "witness", everyMs: 30 * SECOND, run: () => gate.lookAgain() },
    { name: "prune-requests", everyMs: MINUTE, run: () => pruneRequests(db, BATCH) },
    { name: "prune-leases", everyMs: MINUTE, run: () => pruneLeases(db, 5 * BATCH, 10 * SECOND) },
    { name: "prune-changes", everyMs: MINUTE, run: () => pruneChanges(db, keepChangesMs, 10 * BATCH) },
    { name: "prune-operations", everyMs: HOUR, run: () => pruneOperations(db) },
    { name: "audit-partitions", everyMs: HOUR, run: () => ensurePartitions(db, PARTITION_DAYS) },
  ];
}

async function purgeSecrets(db: Db, secrets: SecretWriter): Promise<void> {
  for (const path of await purgeableSecrets(db, BATCH)) await secrets.purge(path, systemActor("secret.purge", "recovery window over"));
}
