/** A target as stored; its password is sealed and stays in the row. Times are Unix milliseconds. */
export interface TargetRecord {
  readonly uid: string;
  /** One path segment; the path is `targets/<name>`. */
  readonly name: string;
  /** Name of the engine. */
  readonly engine: string;
  /** The engine's own configuration, checked by it when written. */
  readonly config: object;
  /** The broker's own login there, where it is not the configured one: it was rotated. */
  readonly login: string | undefined;
  /** Its twin, whose turn is next. */
  readonly otherLogin: string | undefined;
  readonly upkeep: UpkeepConfig;
  /** Counts changes; the etag. */
  readonly generation: number;
  readonly updatedAt: number;
}

/** What is done on a target by the calendar. Undefined: the default. */
export interface UpkeepConfig {
  /** What scans do with logins of this broker's that no lease accounts for; undefined: report. */
  readonly orphans?: "report" | "drop" | undefined;
  /** Orphans are dropped once they were first seen this long ago. Default: `DEFAULT_ORPHAN_AGE_MS`. */
  readonly orphanAgeMs?: number | undefined;
  /** Between scans. Default: `DEFAULT_SCAN_INTERVAL_MS`. */
  readonly scanIntervalMs?: number | undefined;
  /** The broker's own login gets a new password this often; undefined: by hand alone. */
  readonly rotateLoginEveryMs?: number | undefined;
}

export const DEFAULT_ORPHAN_AGE_MS = 3_600_000;
export const DEFAULT_SCAN_INTERVAL_MS = 3_600_000;

/** `host:port`, whatever the engine; empty for a target that is not there. */
export function addressOfTarget(target: TargetRecord | undefined): string {
  const { host = "", port = "" } = (target?.config ?? {}) as { readonly host?: string; readonly port?: number };
  return target === undefined ? "" : `${host}:${port}`;
}

/** Logins made ahead, unable to log in: an issue takes one and enables it. */
export interface PoolConfig {
  /** Logins kept ready; 1 to 10,000. */
  readonly size: number;
  /** Older ones are taken away unused. Milliseconds. */
  readonly maxAgeMs: number;
  /** Made a second at most, by each replica. */
  readonly refillPerSecond: number;
}

/** What a target's own rules ask of a password; all minimum counts. */
export interface PasswordPolicyConfig {
  /** 22 (128 bits) to 128. */
  readonly length: number;
  readonly minUpper: number;
  readonly minLower: number;
  readonly minDigits: number;
  /** 0: none at all; else of `-._~`. */
  readonly minSymbols: number;
}

/** Live leases (PENDING, ACTIVE, REVOKING) at most. */
export interface QuotaConfig {
  readonly maxLeases: number | undefined;
  readonly maxLeasesPerPrincipal: number | undefined;
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
  /** Undefined: none. */
  readonly pool: PoolConfig | undefined;
  /** The readable part of a login's name (src/engines/names.ts); undefined: the role. */
  readonly usernameTemplate?: string | undefined;
  readonly passwordPolicy?: PasswordPolicyConfig | undefined;
  /** Undefined: no limit. */
  readonly quotas: QuotaConfig | undefined;
  /** The engine's own configuration, checked by it when written. */
  readonly config: object;
  readonly generation: number;
  readonly updatedAt: number;
}
