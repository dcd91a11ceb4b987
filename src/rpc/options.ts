/** How the pipeline behaves; every time in milliseconds. */
export interface PipelineOptions {
  /** Calls (streams not counted) served at a time. */
  readonly maxInFlight: number;
  /** Open streams served at a time. */
  readonly maxStreams: number;
  /** Streams whose first record is being written at a time; about what one commit of the audit takes. The others wait in order. */
  readonly maxOpening: number;
  /** How long a stream may wait for its turn to open before it is refused with RATE_LIMITED and a time to come again. */
  readonly maxOpeningMs: number;
  /** Age at which a stream is ended with its resume token, ±10 %, so that clients spread over replicas. */
  readonly maxStreamMs: number;
  /** Streams on a connection that is being left (its age, a new trust bundle) end within this time. Shorter than the front's graces. */
  readonly leaveMs: number;
  /** How long a write may wait for a client that takes nothing at all, before its stream ends with WATCH_TOO_SLOW. */
  readonly maxStallMs: number;
  /** How long the status of a stream may wait behind what its client does not take, before the stream is reset. */
  readonly resetMs: number;
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
  maxOpening: 500,
  maxOpeningMs: 30_000,
  maxStreamMs: 1_800_000,
  leaveMs: 20_000,
  maxStallMs: 30_000,
  resetMs: 10_000,
  maxUnaryMs: 60_000,
  deadlineShaveMs: 5,
  minUnaryMs: 2,
  rate: { perSecond: 50_000, burst: 100_000 },
  auditReads: "durable",
  maxLagMs: 2000,
  denialWindowMs: 250,
};
