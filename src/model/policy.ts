import type { Capability } from "./capability.ts";

/** A policy as written: what the API stores and the engine (src/policy) checks and compiles. */
export interface PolicyDocument {
  /** One path segment; the path is `policies/<name>`. */
  readonly name: string;
  /** SPIFFE id patterns; a policy speaks of who matches any of them. */
  readonly principals: readonly string[];
  readonly rules: readonly PolicyRule[];
  /** Says that a wildcard principal with a wildcard path is meant. */
  readonly allowBroad: boolean;
}

export interface PolicyRule {
  readonly paths: readonly string[];
  /** `*`: every capability. */
  readonly allow: readonly (Capability | "*")[];
  readonly deny: readonly (Capability | "*")[];
  /** A CEL condition; undefined or empty: always. */
  readonly when?: string | undefined;
  readonly description?: string | undefined;
}

/** `none`: no rule speaks of it, which is a denial too; `deny`: a rule forbids it, which nothing overrules. */
export type PolicyDecision = "allow" | "deny" | "none";
