import { randomUUID } from "node:crypto";
import type { Log } from "../base/log.ts";
import type { Catalog } from "../catalog/catalog.ts";
import { systemActor } from "../model/audit.ts";
import { DEFAULT_ORPHAN_AGE_MS, DEFAULT_SCAN_INTERVAL_MS } from "../model/target.ts";
import { targetsDueForScan } from "../store/catalog.ts";
import type { Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";

export interface ScanScheduleDeps {
  readonly db: Db;
  readonly committer: Committer;
  readonly catalog: Pick<Catalog, "targetByUid">;
  /** `targets/<name>` */
  readonly pathOf: (uid: string) => string;
  /** Engines that can list their logins. */
  readonly engines: readonly string[];
  readonly log: Log;
}

const BATCH = 20;

/**
 * Scans that start by themselves: at each target's interval, and at once when the target may have gone back in time. When one is due stands in the target's row; of the replicas that see it, the one
 * whose change comes first begins it, and any works it off.
 */
export class ScanSchedule {
  readonly #deps: ScanScheduleDeps;

  constructor(deps: ScanScheduleDeps) {
    this.#deps = deps;
  }

  /** Answers how many were begun. */
  async begin(): Promise<number> {
    const { db, engines } = this.#deps;
    let begun = 0;
    // oxlint-disable-next-line no-await-in-loop -- a few
    for (const uid of await targetsDueForScan(db, engines, BATCH)) if (await this.#begin(uid)) begun++;
    return begun;
  }

  async #begin(uid: string): Promise<boolean> {
    const { catalog, committer, pathOf, log } = this.#deps;
    const target = catalog.targetByUid(uid);
    if (target === undefined) return false; // deleted, or newer than the feed: next time
    const { orphans, orphanAgeMs = DEFAULT_ORPHAN_AGE_MS, scanIntervalMs = DEFAULT_SCAN_INTERVAL_MS } = target.upkeep;
    const scan = { targetUid: uid, dropOrphans: orphans === "drop", orphanAgeMs, names: [] };
    const args = { uid, id: randomUUID(), scan, interval_ms: scanIntervalMs };
    const outcome = await committer.commit({ kind: "target.scan", path: pathOf(uid), actor: systemActor("target.scan", "due"), args });
    if (outcome.ok) log.info({ target: uid, operation: args.id }, "a target is compared with the ledger");
    return outcome.ok;
  }
}
