/**
 * A rotation: WAITING → RUNNING → WAITING, or ABORTED until somebody resumes it. While RUNNING it is at a step, which says what is done next:
 * CREATE (the candidate is made, committed as PENDING) → SET (the outside is told) → TEST (used; CURRENT moves) → FINISH (tested again once no older try can take effect). A candidate that fails too often, or whose
 * predecessor is CURRENT no more, is given up: back to CREATE with the next generation. RESTORE: aborted after the outside may have been told; CURRENT is set there again, then ABORTED.
 */
export type RotationState = "WAITING" | "RUNNING" | "ABORTED";
export type RotationStep = "CREATE" | "SET" | "TEST" | "FINISH" | "RESTORE";

/** When a secret is rotated. Lengths in milliseconds. */
export interface RotationPolicy {
  readonly schedule?: { readonly kind: "interval"; readonly everyMs: number } | CronRule | undefined;
  /** Planned times are put off by up to this, at random. */
  readonly jitterMs?: number | undefined;
  readonly conditions?: RotationConditions | undefined;
}

export interface CronRule {
  readonly kind: "cron";
  /** Five fields. */
  readonly expression: string;
  /** IANA name. */
  readonly timeZone: string;
  /** How late a rotation may begin; undefined: as late as it may be. */
  readonly windowMs?: number | undefined;
}

export interface RotationConditions {
  readonly maxAgeMs?: number | undefined;
  /** 0: does not count. */
  readonly maxReads: number;
  readonly beforeExpiryMs?: number | undefined;
  readonly onFinding: boolean;
}

/** What an operator puts; stored as one document. */
export interface RotationDocument {
  readonly policy: RotationPolicy;
  readonly maxCandidateFailures: number;
  /** The rotator's own configuration, checked by it when written. */
  readonly config: object;
}

/** A rotation as stored. Times are Unix milliseconds, by the database's clock. */
export interface RotationRecord extends RotationDocument {
  readonly uid: string;
  /** Of the secret. */
  readonly path: string;
  readonly secretUid: string;
  readonly rotator: string;
  /** Name of the target it works on; empty: none. */
  readonly target: string;
  /** Counts what was put; the etag. */
  readonly edition: number;
  readonly state: RotationState;
  readonly step: RotationStep | undefined;
  /** Counts candidates. */
  readonly generation: number;
  /** 0: none. */
  readonly pendingVersion: number;
  readonly attempts: number;
  readonly failures: number;
  readonly problem: string;
  readonly stepAt: number | undefined;
  readonly stuckSince: number | undefined;
  readonly dueAt: number | undefined;
  readonly plannedAt: number | undefined;
  readonly windowEndsAt: number | undefined;
  readonly lastAt: number | undefined;
  readonly cause: string;
  readonly updatedAt: number;
  /** When the next one begins by itself, as far as that is known: the plan, or a condition on CURRENT that comes first. Undefined in a worker's hands. */
  readonly nextAt: number | undefined;
}

/** A rotation that is due, claimed: until the claim ends no other worker has it. */
export interface DueRotation extends RotationRecord {
  /** For the schedule: how many of one target are worked on. The target's name, or the rotation's uid. */
  readonly id: string;
  readonly targetUid: string;
  /** What its next move must name: with an older one nothing is changed. */
  readonly turn: number;
  readonly baseVersion: number;
  readonly givenUp: readonly number[];
  readonly reads: number;
  readonly findingAt: number | undefined;
  readonly settledAt: number;
  readonly traceId: string;
  /** When it was claimed. */
  readonly now: number;
  readonly secret: {
    readonly deleted: boolean;
    /** 0: none. */
    readonly current: number;
    readonly previous: number;
    readonly latest: number;
    /** Of CURRENT. */
    readonly createdAt: number | undefined;
    readonly expireAt: number | undefined;
  };
}
