/** How the pipeline behaves; every time in milliseconds. */
export interface PipelineOptions {
  /** Calls (streams not counted) served at a time. */
  readonly maxInFlight: number;
  /** Open streams served at a time. */
  readonly maxStreams: number;
  /** Longest unary call, unless its row says more. */
  readonly maxUnaryMs: number;
  /** Taken off the client's deadline, so that the client gets our error and not its own. */
  readonly deadlineShaveMs: number;
  /** A call with less time than this (after the shave) is refused. */
  readonly minUnaryMs: number;
  readonly rate: RateOptions;
  /** `async`: reads are answered without waiting for their record, but only while the feed is fresh. */
  readonly auditReads: "durable" | "async";
  /** With `async`: refuse when the applied state is older. */
  readonly maxLagMs: number;
  /** Equal denials within this time become one record with their count. */
  readonly denialWindowMs: number;
}

/** A token bucket per principal, in units: a read costs 1. */
export interface RateOptions {
  readonly perSecond: number;
  readonly burst: number;
}

export const DEFAULT_OPTIONS: PipelineOptions = {
  maxInFlight: 5000,
  maxStreams: 20_000,
  maxUnaryMs: 60_000,
  deadlineShaveMs: 5,
  minUnaryMs: 2,
  rate: { perSecond: 50_000, burst: 100_000 },
  auditReads: "durable",
  maxLagMs: 2000,
  denialWindowMs: 250,
};
