import type { EngineDefinition } from "../engine.ts";
import { ABILITIES } from "./abilities.ts";
import { checkRoleConfig, checkTargetConfig, type RedisRoleConfig, type RedisTargetConfig } from "./config.ts";
import { RedisTarget } from "./target.ts";

/** Redis from 6.2 and Valkey: ACL users of one server, not of a cluster. */
export const redis = {
  name: "redis",
  abilities: ABILITIES,
  checkTarget: checkTargetConfig,
  checkRole: checkRoleConfig,
  open: (config, password, options) => new RedisTarget(config, password, options),
} as const satisfies EngineDefinition<RedisTargetConfig, RedisRoleConfig>;
