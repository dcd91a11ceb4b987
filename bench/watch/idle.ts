import { setTimeout as sleep } from "node:timers/promises";
import type { Child } from "../child.ts";
import type { Bench, Result } from "../result.ts";
import { WATCH, watchRequest } from "./fanout.ts";
import type { WatchWorld } from "./world.ts";

const MANY = 10_000;
const FEW = 1000;
/** Two bookmarks each. */
const BOOKMARKS_MS = 20_000;
const KB = 1024;

interface Usage {
  readonly cpu: number;
  readonly rss: number;
}

/** Resident memory after a collection, less what it was after some streams had come and gone; each watch has a path of its own. */
export function idleBench(world: () => Promise<WatchWorld>): Bench {
  return {
    name: "watch_idle_10k",
    reach: "≤ 22 KB each on 10 connections, ≤ 75 KB on one each; bookmarks < 8 % of a core",
    async run(): Promise<Result> {
      const { broker: start, floor: startFloor, watchers: startWatchers } = await world();
      const broker = await start();
      const shared = await weigh(broker.child, broker.address, startWatchers, MANY, 10);
      await broker.stop();
      const second = await start();
      const single = await weigh(second.child, second.address, startWatchers, FEW, FEW);
      await second.stop();
      const bare = async (streams: number, connections: number): Promise<number> => {
        const floor = await startFloor();
        const found = await weigh(floor, (floor.ready as { address: string }).address, startWatchers, streams, connections, 0);
        await floor.stop();
        return found.kb;
      };
      const floor = await bare(MANY, 10);
      const detail = {
        single_kb: single.kb,
        single_floor_kb: await bare(FEW, FEW),
        bookmarks_percent: shared.percent,
        single_bookmarks_percent: single.percent,
        single_bookmarks_percent_of_10k: (single.percent * MANY) / FEW,
      };
      return { value: shared.kb, unit: "KB", floor, ratio: shared.kb / floor, detail };
    },
  };
}

async function weigh(
  server: Child,
  address: string,
  startWatchers: () => Promise<Child>,
  streams: number,
  connections: number,
  bookmarksMs = BOOKMARKS_MS,
): Promise<{ readonly kb: number; readonly percent: number }> {
  const requests = Array.from({ length: streams }, (_, i) => watchRequest(`secrets/demo/app-${i}/password`));
  const usage = async () => (await server.ask({ gc: true })) as Usage;
  const watchers = await startWatchers();
  await watchers.ask({ open: { address, method: WATCH, requests, connections: 10, streams: 200 } });
  await watchers.ask({ close: true });
  await sleep(1000);
  const empty = await usage();
  await sleep(bookmarksMs / 4);
  const idle = (await usage()).cpu - empty.cpu;
  await watchers.ask({ open: { address, method: WATCH, requests, connections, streams } });
  await sleep(1000);
  const full = await usage();
  await sleep(bookmarksMs);
  const busy = (await usage()).cpu - full.cpu;
  await watchers.stop();
  return { kb: (full.rss - empty.rss) / streams / KB, percent: bookmarksMs === 0 ? 0 : ((busy - idle * 4) / (bookmarksMs * 1000)) * 100 };
}
