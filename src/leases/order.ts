import type { Log } from "../base/log.ts";
import type { Sensitive } from "../base/sensitive.ts";
import type { Catalog } from "../catalog/catalog.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { Actor } from "../model/audit.ts";
import type { LeaseRecord } from "../model/lease.ts";
import type { RoleRecord } from "../model/target.ts";
import type { Command, Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import type { LedgerClock } from "../store/ledger-clock.ts";
import type { Due } from "./due.ts";
import type { DrawnLogins } from "./drawn.ts";
import type { LeaseOwners } from "./owners.ts";
import type { TargetReach } from "./reach.ts";
import type { LeaseRevoker } from "./revoke.ts";
import type { LeaseSettings } from "./settings.ts";
import type { TargetClocks } from "./target-clock.ts";

/** What issuing needs, from the pool or not. */
export interface IssueDeps {
  readonly db: Db;
  readonly clock: LedgerClock;
  readonly catalog: Catalog;
  readonly reach: TargetReach;
  readonly clocks: TargetClocks;
  readonly keyring: Keyring;
  readonly committer: Committer;
  readonly owners: LeaseOwners;
  readonly revoker: LeaseRevoker;
  readonly drawn: DrawnLogins;
  readonly due: Due;
  readonly instance: string;
  readonly settings: LeaseSettings;
  readonly log: Log;
}

/** Who asks for what. */
export interface Order {
  readonly path: string;
  /** Undefined: the role's default. */
  readonly ttlMs: number | undefined;
  readonly actor: Actor;
  readonly request: Command["request"];
}

/** An order as its role has it now. */
export interface Terms {
  readonly order: Order;
  readonly role: RoleRecord;
  readonly ttlMs: number;
  /** Share of the TTL after which a client renews. */
  readonly share: number;
}

/** A credential on lease. */
export interface Issued {
  readonly lease: LeaseRecord;
  readonly password: Sensitive;
  /** 0 for a replay. */
  readonly revision: number;
  /** False for a replay: it is a disclosure, but no change. */
  readonly recorded: boolean;
}

/** What the ledger is told of an order, however it is met. */
export function argsOf({ order, role, ttlMs, share }: Terms): Readonly<Record<string, unknown>> {
  return {
    role_uid: role.uid,
    role_generation: role.generation,
    default_ttl_ms: role.defaultTtlMs,
    ttl_ms: ttlMs,
    renew_ms: Math.floor(ttlMs * share),
    max_ttl_ms: role.maxTtlMs,
    ...(role.quotas?.maxLeases === undefined ? {} : { max_live: role.quotas.maxLeases }),
    ...(role.quotas?.maxLeasesPerPrincipal === undefined ? {} : { max_live_per_principal: role.quotas.maxLeasesPerPrincipal }),
    ...(order.request === undefined ? {} : { request_id: order.request.id, request_hash: order.request.hash }),
  };
}

type Row = Pick<LeaseRecord, "id" | "generation" | "username" | "oid" | "systemIdentifier" | "connection" | "ownedObjects" | "issuedAt">;

/** The row of a lease that was just issued, as it stands in the ledger but for what only the schedule reads. */
export function issuedLease({ order, role, ttlMs, share }: Terms, row: Row): LeaseRecord {
  const expireAt = row.issuedAt + ttlMs;
  return {
    ...row,
    path: role.path,
    targetUid: role.targetUid,
    principal: order.actor.principal,
    state: "ACTIVE",
    expireAt,
    renewAt: row.issuedAt + Math.floor(ttlMs * share),
    maxExpireAt: row.issuedAt + role.maxTtlMs,
    renewingTo: undefined,
    enabling: false,
    nextActionAt: expireAt,
    attempts: 0,
    problem: undefined,
    stalled: false,
    endCause: undefined,
    endedAt: undefined,
    delivered: true,
    traceId: order.actor.traceId,
  };
}
