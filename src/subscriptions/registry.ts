import { LeaseholdError } from "../base/errors.ts";
import type { SinkConfig } from "../model/subscription.ts";
import { redisStream } from "./redis-stream/definition.ts";
import type { SinkDefinition } from "./sink.ts";
export { headerProblem } from "./webhook/headers.ts";
import { webhook } from "./webhook/definition.ts";

const SINKS = [webhook, redisStream] as const;

/** The kind of sink of a configuration; undefined where it is consumed instead. */
export function sinkOf(config: SinkConfig): SinkDefinition | undefined {
  if (config.kind === "") return undefined;
  const found = SINKS.find((sink) => sink.kind === config.kind);
  if (found === undefined) throw new LeaseholdError("INTERNAL", `unknown sink ${config.kind}`);
  // A configuration goes to the definition of its own kind, which has checked it when it was written.
  return found as unknown as SinkDefinition;
}
