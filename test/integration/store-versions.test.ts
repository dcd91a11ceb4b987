import { existsSync, readdirSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { createLog } from "../../src/base/log.ts";
import { GroupCommitter } from "../../src/store/group-committer.ts";
import { migrate } from "../../src/store/migrate.ts";
import { freshCluster } from "../support/postgres.ts";

const ROOT = "/usr/lib/postgresql/15";
const FOLDER = `${ROOT}/bin`;

/** Their names, each once. */
const MIGRATIONS = readdirSync(resolve(import.meta.dirname, "../../src/store/migrations"))
  .map((file) => file.slice(5, -4))
  .sort();

/** The embedded PostgreSQL is 18; an older one is tried where Debian's is installed. */
describe.runIf(existsSync(`${FOLDER}/postgres`))("the store on PostgreSQL 15", () => {
  it("migrates, by two at once, and commits", async () => {
    const cluster = await freshCluster({}, { initdb: `${FOLDER}/initdb`, postgres: `${FOLDER}/postgres`, root: ROOT, localeFlags: ["--locale=C"] });
    try {
      const url = cluster.url("postgres");
      const applied = await Promise.all([migrate({ connectionString: url }), migrate({ connectionString: url })]);
      expect(applied.flat().sort()).toEqual(MIGRATIONS);
      const config = { url, poolSize: 1, statementTimeoutMs: 5000, connectTimeoutMs: 3000, requireSyncStandby: false };
      const tail = { chain: "c", batch: 0, seq: 0, head: "00".repeat(32) };
      const writer = new GroupCommitter(config, tail, { fingerprint: (value) => value, committed: () => {} }, createLog("silent"));
      const actor = { principal: "p", requestId: "r", traceId: "", action: "a", capability: "write", peer: "" } as const;
      const outcomes = await Promise.all(
        Array.from({ length: 50 }, (_, i) =>
          writer.commit({ kind: "secret.put", path: `secrets/v/${i}`, actor, args: { uid: crypto.randomUUID(), version: 1, sealed: "AAAA", key_id: 1 } }),
        ),
      );
      expect(outcomes.every((outcome) => outcome.ok)).toBe(true);
      await writer.close();
    } finally {
      await cluster.remove();
    }
  });
});
