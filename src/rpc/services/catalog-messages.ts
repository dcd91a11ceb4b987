import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Role, RoleSchema, Target, TargetSchema, WarmPool } from "../../gen/leasehold/v1/operator_service_pb.ts";
import { invalid, LeaseholdError } from "../../base/errors.ts";
import { Sensitive } from "../../base/sensitive.ts";
import type { RoleInput, TargetInput } from "../../catalog/write.ts";
import { isSegment, parsePath } from "../../model/path.ts";
import type { PoolConfig, QuotaConfig, RoleRecord, TargetRecord } from "../../model/target.ts";
import { durationMs, timestamp } from "../convert.ts";
import { upkeepInput, upkeepMessage } from "./upkeep-messages.ts";
import { roleConfig, roleEngine, targetConfig, targetEngine } from "./engine-messages.ts";

const HOUR = 3_600_000;
const DEFAULT_TTL_MS = HOUR;
const DEFAULT_MAX_TTL_MS = 24 * HOUR;
/** Source: Vault's default of 32 days, here a hard limit (lesson 12). */
const HARD_MAX_TTL_MS = 32 * 24 * HOUR;

/** Throws REQUEST_INVALID for what only code can check. */
export function targetInput(target: Target): TargetInput {
  if (!isSegment(target.name)) throw new LeaseholdError("PATH_INVALID");
  const { engine, config } = targetConfig(target);
  const kind = target.password?.kind;
  if (target.password !== undefined && (kind?.case !== "text" || kind.value === "")) throw invalid("target.password", "must have a text");
  return { name: target.name, engine, config, upkeep: upkeepInput(target.upkeep), password: kind?.case === "text" ? Sensitive.text(kind.value) : undefined };
}

export function targetMessage(record: TargetRecord): MessageInitShape<typeof TargetSchema> {
  return {
    name: record.name,
    engine: targetEngine(record),
    login: record.login ?? "",
    ...(Object.keys(record.upkeep).length === 0 ? {} : { upkeep: upkeepMessage(record.upkeep) }),
    uid: record.uid,
    etag: String(record.generation),
    updateTime: timestamp(record.updatedAt),
  };
}

/** Throws REQUEST_INVALID for what only code can check. */
export function roleInput(role: Role): RoleInput {
  const { engine, config } = roleConfig(role);
  parsePath(role.path, "credentials");
  if (!role.path.startsWith(`credentials/${engine}/`)) throw invalid("role.path", `must begin with credentials/${engine}/`);
  const maxTtlMs = durationMs(role.maxTtl, "role.max_ttl") ?? DEFAULT_MAX_TTL_MS;
  const defaultTtlMs = durationMs(role.defaultTtl, "role.default_ttl") ?? Math.min(DEFAULT_TTL_MS, maxTtlMs);
  if (maxTtlMs < 1000 || maxTtlMs > HARD_MAX_TTL_MS) throw invalid("role.max_ttl", "must be from 1 s to 32 days");
  if (defaultTtlMs < 1000 || defaultTtlMs > maxTtlMs) throw invalid("role.default_ttl", "must be from 1 s to max_ttl");
  return {
    path: role.path,
    target: role.target,
    engine,
    defaultTtlMs,
    maxTtlMs,
    pool: poolInput(role.pool),
    quotas: quotasInput(role),
    config,
    ...namingInput(role),
  };
}

const DEFAULT_POOL_AGE_MS = HOUR;
const DEFAULT_REFILL = 50;

function namingInput({ usernameTemplate, passwordPolicy: policy }: Role): Pick<RoleInput, "usernameTemplate" | "passwordPolicy"> {
  return {
    ...(usernameTemplate === "" ? {} : { usernameTemplate }),
    ...(policy === undefined
      ? {}
      : {
          passwordPolicy: {
            length: policy.length,
            minUpper: policy.minUpper,
            minLower: policy.minLower,
            minDigits: policy.minDigits,
            minSymbols: policy.minSymbols,
          },
        }),
  };
}

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
  return {
    path: record.path,
    target: record.targetName,
    defaultTtl: durationFromMs(record.defaultTtlMs),
    maxTtl: durationFromMs(record.maxTtlMs),
    engine: roleEngine(record),
    ...(record.pool === undefined
      ? {}
      : { pool: { size: record.pool.size, maxAge: durationFromMs(record.pool.maxAgeMs), refillPerSecond: record.pool.refillPerSecond } }),
    usernameTemplate: record.usernameTemplate ?? "",
    ...(record.passwordPolicy === undefined ? {} : { passwordPolicy: record.passwordPolicy }),
    maxLeases: record.quotas?.maxLeases ?? 0,
    maxLeasesPerPrincipal: record.quotas?.maxLeasesPerPrincipal ?? 0,
    uid: record.uid,
    etag: String(record.generation),
    updateTime: timestamp(record.updatedAt),
  };
}
