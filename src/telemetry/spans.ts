import { ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, trace, type Tracer } from "@opentelemetry/api";
import type { ActSpan, ActSpans } from "../base/act-spans.ts";
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

/** Makes spans for sampled automatic acts, each a trace of its own. The call that led to it is named by its trace id, in an attribute: its span's id is not kept, and a link needs one. */
export class AutomaticSpans implements ActSpans {
  readonly #tracer: Tracer;
  readonly #sampler: Sampler;

  constructor(tracer: Tracer, sampler: Sampler) {
    this.#tracer = tracer;
    this.#sampler = sampler;
  }

  start(
    name: string,
    attributes: Readonly<Record<string, string | number>>,
    { why, traceId }: { readonly why: string; readonly traceId: string },
  ): ActSpan | undefined {
    if (!this.#sampler(undefined)) return undefined;
    const cause = { "leasehold.cause": why, ...(traceId === "" ? {} : { "leasehold.cause_trace_id": traceId }) };
    const span = this.#tracer.startSpan(name, { kind: SpanKind.INTERNAL, attributes: { ...attributes, ...cause } }, ROOT_CONTEXT);
    return {
      end(problem) {
        if (problem !== undefined) {
          span.setAttribute("leasehold.problem", problem);
          span.setStatus({ code: SpanStatusCode.ERROR });
        }
        span.end();
      },
    };
  }
}
