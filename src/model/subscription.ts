import type { Change } from "./event.ts";

/** Where a webhook goes; its secrets are sealed apart (WebhookSecrets). */
export interface WebhookConfig {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Names of the headers that are sealed, in lower case. */
  readonly secretHeaders: readonly string[];
  readonly caPem?: string | undefined;
  readonly timeoutMs: number;
  /** Refusals in a row that make a single event a dead letter. */
  readonly maxRefusals: number;
}

export interface RedisStreamConfig {
  readonly host: string;
  readonly port: number;
  readonly tls: boolean;
  readonly caPem?: string | undefined;
  readonly username?: string | undefined;
  readonly database: number;
  readonly key: string;
  readonly maxLength: number;
  readonly timeoutMs: number;
}

export type SinkConfig = { readonly kind: "" } | ({ readonly kind: "webhook" } & WebhookConfig) | ({ readonly kind: "redis_stream" } & RedisStreamConfig);
export type SinkKind = SinkConfig["kind"];

export type OnLoss = "STOP" | "CONTINUE" | "SNAPSHOT";

/** A subscription as written, without secrets. */
export interface SubscriptionDocument {
  /** Exact paths and folders (`secrets/a/**`), as the API has them. */
  readonly paths: readonly string[];
  /** Numbers of event types; empty: all. */
  readonly types: readonly number[];
  readonly start: "NOW" | "SNAPSHOT";
  readonly maxBatch: number;
  readonly description: string;
  readonly sink: SinkConfig;
}

/** Something lies between one delivery and the next (leasehold.v1.Gap). */
export interface Gap {
  /** Tells one gap from the next. */
  readonly id: string;
  readonly reason: "COMPACTED" | "EPOCH_CHANGED" | "MOVED";
  /** Nothing was lost. */
  readonly intact: boolean;
  readonly fromEpoch: number;
  readonly fromRevision: number;
  readonly epoch: number;
  readonly revision: number;
  /** Unix milliseconds. */
  readonly at: number;
}

/** How far a snapshot has come: the last entry that was given, in which of the subscription's paths. At its start: `scope` 0 and no path. */
export interface SnapshotPlace {
  readonly scope: number;
  readonly path?: string | undefined;
  readonly lease?: string | undefined;
}

/** A subscription as stored. Times are Unix milliseconds. */
export interface SubscriptionRecord {
  readonly uid: string;
  /** One path segment; the path is `subscriptions/<name>`. */
  readonly name: string;
  /** SPIFFE id under whose policy each event is authorized when it is delivered. */
  readonly owner: string;
  readonly document: SubscriptionDocument;
  readonly onLoss: OnLoss;
  readonly signingKey: number;
  readonly paused: boolean;
  readonly generation: number;
  readonly updatedAt: number;
  readonly updatedBy: string;
  readonly epoch: number;
  /** The cursor. */
  readonly revision: number;
  /** Undefined: no snapshot under way. */
  readonly snapshot: SnapshotPlace | undefined;
  readonly gap: Gap | undefined;
  readonly lost: Gap | undefined;
  readonly delivered: number;
  readonly skipped: number;
  readonly deadLetters: number;
  readonly movedAt: number;
  readonly attempts: number;
  /** Of the single event at the cursor. */
  readonly refusals: number;
  /** Events in a delivery while a refusal is being isolated; 0: as many as the document says. */
  readonly batchLimit: number;
  readonly lastError: string;
  readonly failingSince: number | undefined;
  readonly nextAttemptAt: number | undefined;
  readonly claimed: boolean;
  /** The fence: what a worker writes counts only while it has not moved. */
  readonly claim: number;
}

/** What a delivery is made of, whatever it is sent as. */
export interface Delivery {
  readonly uid: string;
  readonly name: string;
  readonly epoch: number;
  /** Everything up to here is delivered with it. */
  readonly revision: number;
  readonly changes: readonly Change[];
  /** The changes are a snapshot's entries. */
  readonly snapshot: boolean;
  readonly snapshotEnd: boolean;
  readonly gap: Gap | undefined;
  readonly replay: boolean;
}

/** What a dead letter holds: one event, or a notice. */
export interface DeadContent {
  readonly change?: Change | undefined;
  readonly snapshot: boolean;
  readonly snapshotEnd: boolean;
  readonly gap?: Gap | undefined;
}

export interface DeadLetterRecord {
  readonly id: string;
  readonly place: number;
  readonly epoch: number;
  readonly revision: number;
  readonly content: DeadContent;
  readonly problem: string;
  readonly attempts: number;
  readonly createdAt: number;
  readonly updatedAt: number;
  readonly replaying: boolean;
}
