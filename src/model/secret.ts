import type { Sensitive } from "../base/sensitive.ts";

/** The fields of a secret in clear, by name. */
export type SecretData = ReadonlyMap<string, SecretValue>;

export interface SecretValue {
  /** Whether it travels as text (UTF-8) or as raw bytes. */
  readonly kind: "text" | "bytes";
  readonly value: Sensitive;
}

/** A secret's metadata, as stored. Times are Unix milliseconds. */
export interface SecretMeta {
  readonly uid: string;
  readonly path: string;
  readonly latestVersion: number;
  readonly currentVersion: number;
  /** 0: none. */
  readonly previousVersion: number;
  /** A rotation's candidate; 0: none is under way. */
  readonly pendingVersion: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly maxVersions: number;
  /** Counts changes; the etag. */
  readonly generation: number;
  readonly createdAt: number;
  readonly updatedAt: number;
  readonly deletedAt: number | undefined;
  readonly purgeAt: number | undefined;
}

/** One version, without data. */
export interface VersionMeta {
  readonly version: number;
  readonly createdAt: number;
  readonly createdBy: string;
  readonly notBefore: number | undefined;
  readonly expireAt: number | undefined;
  readonly deletedAt: number | undefined;
  readonly destroyedAt: number | undefined;
}

export type StagingLabel = "CURRENT" | "PREVIOUS" | "PENDING";

/** Which version a read means. */
export type Selector = { readonly kind: "version"; readonly version: number } | { readonly kind: "label"; readonly label: StagingLabel };

export function stagingLabels(secret: SecretMeta, version: number): StagingLabel[] {
  if (version === secret.currentVersion) return ["CURRENT"];
  if (version === secret.pendingVersion) return ["PENDING"];
  return version === secret.previousVersion ? ["PREVIOUS"] : [];
}

/** Limits of a version's data, in bytes over keys and values. Source: api.md, Style. */
export const MAX_DATA_BYTES = 64 * 1024;
export const DEFAULT_RECOVERY_MS = 7 * 86_400_000;
export const MAX_RECOVERY_MS = 90 * 86_400_000;
