import { resumeToken } from "../../src/watch/resume-token.ts";
import { type Bench, median, type Result } from "../result.ts";
import { WATCH, watchRequest } from "./fanout.ts";
import type { WatchWorld } from "./world.ts";

const EVENTS = 100_000;
const ROUNDS = 5;
const SECRETS = 1000;

/** 100,000 changes of 1,000 secrets, written straight into the log while no broker runs; each watch reads them from the store, since a broker that just started holds none. */
export function catchUpBench(world: () => Promise<WatchWorld>): Bench {
  return {
    name: "watch_catch_up",
    reach: "≥ 150,000 events/s",
    async run(): Promise<Result> {
      const { broker: start, watchers: startWatchers, sql } = await world();
      const {
        rows: [head],
      } = await sql.query<{ revision: string; epoch: string }>("select epoch, (select max(revision) from change_log) as revision from store_state");
      await sql.query(
        `insert into change_log (revision, namespace_id, at, type, path, version, versions, principal, decides_reads)
           select $1::bigint + i, 1, leasehold_now(), 1, 'secrets/demo/app-' || i % ${SECRETS} || '/password', 1 + i / ${SECRETS}, array[1 + i / ${SECRETS}], '', true from generate_series(1, ${EVENTS}) i`,
        [head!.revision],
      );
      await sql.query("vacuum analyze change_log");
      const broker = await start();
      const watchers = await startWatchers();
      const request = watchRequest("secrets/demo/**", resumeToken({ epoch: Number(head!.epoch), revision: Number(head!.revision) }));
      const cpu = async () => ((await broker.child.ask({})) as { cpu: number }).cpu;
      const [rates, costs]: [number[], number[]] = [[], []];
      for (let round = 0; round <= ROUNDS; round++) {
        const before = await cpu();
        await watchers.ask({ open: { address: broker.address, method: WATCH, requests: [request], connections: 1, streams: 1, at_once: true } });
        const { ms } = (await watchers.ask({ events: EVENTS })) as { ms: number };
        if (round > 0) {
          rates.push((EVENTS / ms) * 1000);
          costs.push(((await cpu()) - before) / EVENTS);
        }
        await watchers.ask({ close: true });
      }
      await watchers.stop();
      await broker.stop();
      return { value: median(rates), unit: "/s", detail: { server_us: median(costs) } };
    },
  };
}
