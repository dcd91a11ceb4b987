/** A target as stored; its password is sealed and stays in the row. Times are Unix milliseconds. */
export interface TargetRecord {
  readonly uid: string;
  /** One path segment; the path is `targets/<name>`. */
  readonly name: string;
  /** Name of the engine. */
  readonly engine: string;
  /** The engine's own configuration, checked by it when written. */
  readonly config: object;
  /** Counts changes; the etag. */
  readonly generation: number;
  readonly updatedAt: number;
}

/** A role as stored: what can be issued, and for how long. */
export interface RoleRecord {
  readonly uid: string;
  /** `credentials/<engine>/...` */
  readonly path: string;
  readonly targetUid: string;
  readonly targetName: string;
  readonly engine: string;
  readonly defaultTtlMs: number;
  readonly maxTtlMs: number;
  /** The engine's own configuration, checked by it when written. */
  readonly config: object;
  readonly generation: number;
  readonly updatedAt: number;
}
