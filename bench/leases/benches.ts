import type { Bench } from "../result.ts";
import { endBenches } from "./end.ts";
import { issueBenches } from "./issue.ts";
import { millionBench } from "./million.ts";
import { type LeaseWorld, makeLeaseWorld } from "./world.ts";

/** The benches of leases. They share one world, made by the first that runs; `close` ends it. */
export function leaseBenches(): { readonly benches: readonly Bench[]; close(): Promise<void> } {
  let made: Promise<LeaseWorld> | undefined;
  const world = (): Promise<LeaseWorld> => (made ??= makeLeaseWorld());
  return {
    benches: [...issueBenches(world), ...endBenches(world), millionBench(world)],
    async close() {
      await (await made)?.stop();
    },
  };
}
