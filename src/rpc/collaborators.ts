import type { Span } from "@opentelemetry/api";
import type { AuditWriter } from "../audit/audit.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Capability } from "../model/capability.ts";
import type { PathScope } from "../model/path.ts";
import type { Principal } from "../model/principal.ts";
import type { Connections } from "./connection.ts";
import type { RequestFacts } from "./methods.ts";
import type { TraceParent } from "./trace-parent.ts";

/** `none`: no rule speaks of it, which is a denial too; `deny`: a rule forbids it, which an owner can't overrule. */
export type Decision = "allow" | "deny" | "none";

/** The policy engine's newest snapshot. Synchronous: a decision costs under a microsecond. */
export interface Access {
  /** Another object after each change: a stream that was judged by the same one need not be judged again. */
  readonly policies: object;
  decide(principal: Principal, capability: Capability, path: string, facts?: RequestFacts): Decision;
  /** Scopes outside of which nothing is allowed (an over-approximation); empty when nothing at all. */
  allowedPrefixes(principal: Principal, capability: Capability): readonly PathScope[];
  /** True when everything below the folder (`policies/`) is allowed, without exception. */
  allowsFolder(principal: Principal, capability: Capability, folder: string): boolean;
}

/** How far this process has applied the changes that decide reads. */
export interface Freshness {
  /** Highest revision applied. */
  readonly applied: number;
  /** Age of what is applied, in milliseconds: time since the feed was last known to be at the head. */
  readonly lagMs: number;
  /** Resolves once `revision` is applied; rejects with STORE_UNAVAILABLE when that can't be had in time. */
  catchUp(revision: number): Promise<void>;
}

/** What authorization must read from the store first. Both answer undefined for what does not exist. */
export interface Resources {
  lease(id: string): Promise<{ readonly rolePath: string; readonly owner: string } | undefined>;
  operation(id: string): Promise<{ readonly owner: string } | undefined>;
  /** The role's default TTL in milliseconds, which conditions see when the request names none. */
  defaultTtlMs(rolePath: string): Promise<number | undefined> | number | undefined;
}

/** Starts a span for a call that is sampled; undefined (at no cost) for one that is not. */
export interface Spans {
  start(name: string, parent: TraceParent | undefined): Span | undefined;
}

export interface Observer {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly spans: Spans | undefined;
}

export interface Collaborators {
  readonly connections: Connections;
  readonly access: Access;
  readonly audit: AuditWriter;
  readonly freshness: Freshness;
  readonly resources: Resources;
  readonly observer: Observer;
}
