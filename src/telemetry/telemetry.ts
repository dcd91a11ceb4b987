import { logs, metrics as otelMetrics, SamplingDecision, trace } from "@opentelemetry/api";
import type { DestinationStream } from "pino";
import type { Metrics } from "../base/metrics.ts";
import { otelLogDestination } from "./otel-logs.ts";
import { observeMetrics } from "./otel-metrics.ts";
import { samplerOf } from "./sampler.ts";
import { signalsOf } from "./signals.ts";
import { AutomaticSpans, CallSpans } from "./spans.ts";

export interface Telemetry {
  /** Present when traces are exported. */
  readonly spans: CallSpans | undefined;
  /** Likewise, for what nobody called for. */
  readonly acts: AutomaticSpans | undefined;
  /** Present when logs are exported; `tee` it with the usual destination. */
  readonly logDestination: DestinationStream | undefined;
  /** Exports what is left, within `timeoutMs`. Never throws. */
  stop(timeoutMs: number): Promise<void>;
}

const NAME = "leasehold";
const SPAN_QUEUE = "16384";
const SPAN_BATCH = "1024";

/** OpenTelemetry as the environment asks for it; nothing is loaded when it asks for nothing. `env` is changed: the SDK reads it too. */
export async function startTelemetry(env: NodeJS.ProcessEnv, metrics: Metrics, version: string): Promise<Telemetry> {
  const signals = signalsOf(env);
  if (!signals.traces && !signals.metrics && !signals.logs)
    return { spans: undefined, acts: undefined, logDestination: undefined, stop: async () => undefined };
  env["OTEL_BSP_MAX_QUEUE_SIZE"] ??= SPAN_QUEUE; // the usual 2,048 drop spans at 10,000 calls/s and a slow collector
  env["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] ??= SPAN_BATCH;
  env["OTEL_NODE_RESOURCE_DETECTORS"] = "service,host"; // never `process`: it records command arguments
  const { startNodeSdk } = await import("@opentelemetry/sdk-node");
  const sdk = startNodeSdk({
    logLevel: env["OTEL_LOG_LEVEL"] ?? "warn", // `info` goes to standard output
    instrumentations: [],
    sampler: { shouldSample: () => ({ decision: SamplingDecision.RECORD_AND_SAMPLED }), toString: () => "decided before" },
    resourceAttributes: { "service.version": version, ...(hasServiceName(env) ? {} : { "service.name": NAME }) },
    ...(signals.traces ? {} : { spanProcessors: [] }),
    ...(signals.metrics ? {} : { metricReaders: [] }),
    ...(signals.logs ? {} : { logRecordProcessors: [] }),
  });
  if (signals.metrics) observeMetrics(otelMetrics.getMeter(NAME, version), metrics);
  const [tracer, sampler] = [trace.getTracer(NAME, version), samplerOf(env)];
  return {
    spans: signals.traces ? new CallSpans(tracer, sampler) : undefined,
    acts: signals.traces ? new AutomaticSpans(tracer, sampler) : undefined,
    logDestination: signals.logs ? otelLogDestination(logs.getLogger(NAME, version)) : undefined,
    stop: (timeoutMs) => within(timeoutMs, sdk.shutdown()),
  };
}

function hasServiceName(env: NodeJS.ProcessEnv): boolean {
  return Boolean(env["OTEL_SERVICE_NAME"]) || /(^|,)\s*service\.name\s*=/.test(env["OTEL_RESOURCE_ATTRIBUTES"] ?? "");
}

/** A collector that is away must not hold up the end of the process. */
function within(timeoutMs: number, work: Promise<void>): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, timeoutMs);
    const done = (): void => {
      clearTimeout(timer);
      resolve();
    };
    work.then(done, done);
  });
}
