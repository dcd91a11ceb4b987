import { describe, expect, it } from "vitest";
import { OracleRun, type OracleRunOptions } from "../support/oracle-run.ts";
import { openScene } from "../support/oracle-scene.ts";
import { ENDS } from "../support/oracle-watcher.ts";

/** `SEEDS=1000` (npm run test:watch) for many, `FIRST=501` to begin elsewhere, `SEED=17` for one. `KILLS` as `SEEDS`, of those whose replicas are killed. */
const SEEDS = Number(process.env["SEEDS"] ?? 8);
const FIRST = Number(process.env["FIRST"] ?? 1);
const ONLY = process.env["SEED"];
const KILLS = Number(process.env["KILLS"] ?? 2);
/** Seeds under way at a time, on the same brokers: they get in each other's way as real tenants do. */
const SIDE_BY_SIDE = 4;
/** What so many seeds have met for certain. */
const MANY = 100;
const MET = ["WATCH_TOO_SLOW", "REVISION_COMPACTED", "PERMISSION_DENIED", "DRAINING", "client WATCH_TOO_SLOW", "client REVISION_COMPACTED", "client DRAINING"];

async function run(host: "here" | "process", seeds: readonly number[], options: OracleRunOptions): Promise<void> {
  const opened = await openScene(host);
  const startedAt = performance.now();
  const left = seeds.entries();
  const work = async (): Promise<void> => {
    for (const [i, seed] of left) {
      try {
        await new OracleRun(opened.scene, seed, options).go();
      } catch (error) {
        throw new Error(`seed ${seed} (again with SEED=${seed} npm run test:watch): ${(error as Error).message}`, { cause: error });
      }
      if ((i + 1) % 50 === 0) console.log(`${i + 1} seeds, ${((performance.now() - startedAt) / (i + 1)).toFixed(0)} ms each`);
    }
  };
  try {
    await Promise.all(Array.from({ length: SIDE_BY_SIDE }, work));
  } finally {
    await opened.close();
  }
}

describe("watchers are told what the change log says", () => {
  const seeds = ONLY === undefined ? Array.from({ length: SEEDS }, (_, i) => FIRST + i) : [Number(ONLY)];
  it(
    `of ${seeds.length} seeds`,
    async () => {
      ENDS.clear();
      await run("here", seeds, {});
      if (seeds.length < MANY) return;
      console.log("streams ended by:", Object.fromEntries(ENDS));
      for (const reason of MET) expect(ENDS.get(reason), reason).toBeGreaterThan(0);
    },
    60_000 + seeds.length * 30_000,
  );

  const kills = Array.from({ length: KILLS }, (_, i) => FIRST + i);
  it.runIf(ONLY === undefined && KILLS > 0)(
    `of ${kills.length} seeds in which a replica, a process of its own, is killed and its watchers go on at the other`,
    () => run("process", kills, { kills: true }),
    120_000 + kills.length * 30_000,
  );
});
