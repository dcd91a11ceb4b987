/** The span of something that nobody called for: a step of a rotation, a delivery. */
export interface ActSpan {
  /** @param problem a constant word; left out: it went well. */
  end(problem?: string): void;
}

/** Starts a span for an act that is sampled; undefined for one that is not. Attributes are names, numbers and constant words: no secret, and nothing that the outside wrote. */
export interface ActSpans {
  /** @param cause why, and the trace of the call that led to it (W3C id, or empty). */
  start(name: string, attributes: Readonly<Record<string, string | number>>, cause: { readonly why: string; readonly traceId: string }): ActSpan | undefined;
}
