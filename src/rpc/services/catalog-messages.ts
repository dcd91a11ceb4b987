import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  PostgresRole_OwnedObjects as Owned,
  type Role,
  type RoleSchema,
  type Target,
  type TargetSchema,
  TlsMode,
  type WarmPool,
} from "../../gen/leasehold/v1/operator_service_pb.ts";
import { invalid, LeaseholdError } from "../../base/errors.ts";
import { Sensitive } from "../../base/sensitive.ts";
import type { RoleInput, TargetInput } from "../../catalog/write.ts";
import { DEFAULT_SCRAM_ITERATIONS, type PostgresRoleConfig, type PostgresTargetConfig } from "../../engines/registry.ts";
import { isSegment, parsePath } from "../../model/path.ts";
import type { PoolConfig, QuotaConfig, RoleRecord, TargetRecord } from "../../model/target.ts";
import { durationMs, timestamp } from "../convert.ts";

const HOUR = 3_600_000;
const DEFAULT_TTL_MS = HOUR;
const DEFAULT_MAX_TTL_MS = 24 * HOUR;
/** Source: Vault's default of 32 days, here a hard limit (lesson 12). */
const HARD_MAX_TTL_MS = 32 * 24 * HOUR;

/** Throws REQUEST_INVALID for what only code can check. */
export function targetInput(target: Target): TargetInput {
  if (!isSegment(target.name)) throw new LeaseholdError("PATH_INVALID");
  const { engine } = target;
  if (engine.case !== "postgres") throw invalid("target.engine", "must be set: postgres");
  const { value } = engine;
  const config: PostgresTargetConfig = {
    host: value.host,
    port: value.port,
    database: value.database,
    username: value.username,
    tls: value.tlsMode === TlsMode.DISABLE ? { mode: "disable" } : { mode: "verify-full", ...(value.caPem === "" ? {} : { caPem: value.caPem }) },
    ...(value.maxConnections === 0 ? {} : { maxConnections: value.maxConnections }),
  };
  const kind = target.password?.kind;
  if (target.password !== undefined && (kind?.case !== "text" || kind.value === "")) throw invalid("target.password", "must have a text");
  return { name: target.name, engine: "postgres", config, password: kind?.case === "text" ? Sensitive.text(kind.value) : undefined };
}

export function targetMessage(record: TargetRecord): MessageInitShape<typeof TargetSchema> {
  const config = record.config as PostgresTargetConfig;
  return {
    name: record.name,
    engine: {
      case: "postgres",
      value: {
        host: config.host,
        port: config.port,
        database: config.database,
        username: config.username,
        tlsMode: config.tls.mode === "disable" ? TlsMode.DISABLE : TlsMode.VERIFY_FULL,
        caPem: config.tls.caPem ?? "",
        maxConnections: config.maxConnections ?? 0,
      },
    },
    uid: record.uid,
    etag: String(record.generation),
    updateTime: timestamp(record.updatedAt),
  };
}

/** Throws REQUEST_INVALID for what only code can check. */
export function roleInput(role: Role): RoleInput {
  const { engine } = role;
  if (engine.case !== "postgres") throw invalid("role.engine", "must be set: postgres");
  parsePath(role.path, "credentials");
  if (!role.path.startsWith("credentials/postgres/")) throw invalid("role.path", "must begin with credentials/postgres/");
  const maxTtlMs = durationMs(role.maxTtl, "role.max_ttl") ?? DEFAULT_MAX_TTL_MS;
  const defaultTtlMs = durationMs(role.defaultTtl, "role.default_ttl") ?? Math.min(DEFAULT_TTL_MS, maxTtlMs);
  if (maxTtlMs < 1000 || maxTtlMs > HARD_MAX_TTL_MS) throw invalid("role.max_ttl", "must be from 1 s to 32 days");
  if (defaultTtlMs < 1000 || defaultTtlMs > maxTtlMs) throw invalid("role.default_ttl", "must be from 1 s to max_ttl");
  const { value } = engine;
  const reassign = value.ownedObjects === Owned.REASSIGN;
  if (reassign !== (value.reassignTo !== "")) throw invalid("role.postgres.reassign_to", "must be set exactly with OWNED_OBJECTS_REASSIGN");
  const config: PostgresRoleConfig = {
    database: value.database,
    memberOf: [...value.memberOf],
    scramIterations: value.scramIterations || DEFAULT_SCRAM_ITERATIONS,
    ...(value.connectionLimit === 0 ? {} : { connectionLimit: value.connectionLimit }),
    ownedObjects: reassign ? { kind: "reassign_to", role: value.reassignTo } : { kind: value.ownedObjects === Owned.DROP ? "drop" : "refuse" },
  };
  return { path: role.path, target: role.target, engine: "postgres", defaultTtlMs, maxTtlMs, pool: poolInput(role.pool), quotas: quotasInput(role), config };
}

const DEFAULT_POOL_AGE_MS = HOUR;
const DEFAULT_REFILL = 50;

function poolInput(pool: WarmPool | undefined): PoolConfig | undefined {
  if (pool === undefined) return undefined;
  const maxAgeMs = durationMs(pool.maxAge, "role.pool.max_age") ?? DEFAULT_POOL_AGE_MS;
  if (maxAgeMs < 60_000 || maxAgeMs > HARD_MAX_TTL_MS) throw invalid("role.pool.max_age", "must be from 1 min to 32 days");
  return { size: pool.size, maxAgeMs, refillPerSecond: pool.refillPerSecond || DEFAULT_REFILL };
}

function quotasInput({ maxLeases, maxLeasesPerPrincipal }: Role): QuotaConfig | undefined {
  if (maxLeases === 0 && maxLeasesPerPrincipal === 0) return undefined;
  return { maxLeases: maxLeases || undefined, maxLeasesPerPrincipal: maxLeasesPerPrincipal || undefined };
}

export function roleMessage(record: RoleRecord): MessageInitShape<typeof RoleSchema> {
  const config = record.config as PostgresRoleConfig;
  const owned = config.ownedObjects;
  return {
    path: record.path,
    target: record.targetName,
    defaultTtl: durationFromMs(record.defaultTtlMs),
    maxTtl: durationFromMs(record.maxTtlMs),
    engine: {
      case: "postgres",
      value: {
        database: config.database,
        memberOf: [...config.memberOf],
        scramIterations: config.scramIterations,
        connectionLimit: config.connectionLimit ?? 0,
        ownedObjects: owned.kind === "refuse" ? Owned.REFUSE : owned.kind === "drop" ? Owned.DROP : Owned.REASSIGN,
        reassignTo: owned.kind === "reassign_to" ? owned.role : "",
      },
    },
    ...(record.pool === undefined
      ? {}
      : { pool: { size: record.pool.size, maxAge: durationFromMs(record.pool.maxAgeMs), refillPerSecond: record.pool.refillPerSecond } }),
    maxLeases: record.quotas?.maxLeases ?? 0,
    maxLeasesPerPrincipal: record.quotas?.maxLeasesPerPrincipal ?? 0,
    uid: record.uid,
    etag: String(record.generation),
    updateTime: timestamp(record.updatedAt),
  };
}
