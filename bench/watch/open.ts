import type { Bench, Result } from "../result.ts";
import { WATCH, watchRequest } from "./fanout.ts";
import type { WatchWorld } from "./world.ts";

const MANY = 10_000;
const CONNECTIONS = 10;

/** All at once, not waiting for one another: each is to open, after its durable record. A stream that fails ends the bench. */
export function openBench(world: () => Promise<WatchWorld>): Bench {
  return {
    name: "watch_open_10k",
    reach: "each of 10,000 opened at once is let in",
    async run(): Promise<Result> {
      const { broker: start, watchers: startWatchers } = await world();
      const [broker, watchers] = [await start(), await startWatchers()];
      const cpu = async () => ((await broker.child.ask({})) as { cpu: number }).cpu;
      const requests = Array.from({ length: MANY }, (_, i) => watchRequest(`secrets/demo/app-${i}/password`));
      const all = { address: broker.address, method: WATCH, requests, connections: CONNECTIONS };
      // Connections first: a client that is busy with ten thousand requests would not finish its handshakes.
      await watchers.ask({ open: { ...all, streams: CONNECTIONS } });
      const before = await cpu();
      await watchers.ask({ open: { ...all, streams: MANY - CONNECTIONS, at_once: true, same_connections: true } });
      const { ms } = (await watchers.ask({ opened: MANY })) as { ms: number };
      const used = (await cpu()) - before;
      await watchers.stop();
      await broker.stop();
      return { value: ms / 1000, unit: "s", detail: { per_second: (MANY * 1000) / ms, cpu_us_each: used / MANY } };
    },
  };
}
