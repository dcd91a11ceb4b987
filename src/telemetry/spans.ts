import { ROOT_CONTEXT, type Span, SpanKind, trace, type Tracer } from "@opentelemetry/api";
import type { Sampler } from "./sampler.ts";

interface Parent {
  readonly traceId: string;
  readonly spanId: string;
  readonly sampled: boolean;
}

/** Makes spans for sampled calls. The span lives on the call: no AsyncLocalStorage, no active context. */
export class CallSpans {
  readonly #tracer: Tracer;
  readonly #sampler: Sampler;

  constructor(tracer: Tracer, sampler: Sampler) {
    this.#tracer = tracer;
    this.#sampler = sampler;
  }

  start(name: string, parent: Parent | undefined): Span | undefined {
    if (!this.#sampler(parent)) return undefined;
    const context =
      parent === undefined
        ? ROOT_CONTEXT
        : trace.setSpanContext(ROOT_CONTEXT, { traceId: parent.traceId, spanId: parent.spanId, traceFlags: 1, isRemote: true });
    return this.#tracer.startSpan(name, { kind: SpanKind.SERVER }, context);
  }
}
