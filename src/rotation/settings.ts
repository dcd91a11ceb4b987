/** Times of rotations, in milliseconds. */
export interface RotationSettings {
  /** How long a worker has a due rotation to itself. After as long, nothing that it began can change the outside any more: more than `deadlineMs` and the longest statement together. */
  readonly claimMs: number;
  /** A rotator must not change the outside later than this after the claim or the last move. */
  readonly deadlineMs: number;
  /** Pauses between tries. */
  readonly backoffMs: number;
  readonly maxBackoffMs: number;
  /** A step that was tried so often counts as stuck. */
  readonly stuckAfter: number;
}

export const DEFAULT_ROTATION_SETTINGS: RotationSettings = { claimMs: 45_000, deadlineMs: 20_000, backoffMs: 2000, maxBackoffMs: 600_000, stuckAfter: 3 };

/** Failures of one candidate, unless the rotation says otherwise. */
export const DEFAULT_CANDIDATE_FAILURES = 5;
