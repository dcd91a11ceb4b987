import type { Bench } from "../result.ts";
import { pushBench } from "../subscriptions/push.ts";
import { catchUpBench } from "./catch-up.ts";
import { deliveryBenches } from "./delivery.ts";
import { fanoutBench } from "./fanout.ts";
import { idleBench } from "./idle.ts";
import { openBench } from "./open.ts";
import { makeWatchWorld, type WatchWorld } from "./world.ts";

/** The benches of watches, and of subscriptions, which read the same log. They share one world, made by the first that runs; `close` ends it. */
export function watchBenches({ profile }: { readonly profile: string | undefined }): { readonly benches: readonly Bench[]; close(): Promise<void> } {
  let made: Promise<WatchWorld> | undefined;
  const world = (): Promise<WatchWorld> => (made ??= makeWatchWorld(profile));
  return {
    benches: [fanoutBench(world), ...deliveryBenches(world), idleBench(world), openBench(world), catchUpBench(world), pushBench(world)],
    async close() {
      await (await made)?.stop();
    },
  };
}
