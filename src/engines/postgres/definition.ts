import type { EngineDefinition } from "../engine.ts";
import { checkRoleConfig, checkTargetConfig, type PostgresRoleConfig, type PostgresTargetConfig } from "./config.ts";
import { PostgresTarget } from "./target.ts";

/** PostgreSQL 14 to 18, bootstrapped. */
export const postgres = {
  name: "postgres",
  abilities: { serverExpiry: true, sessionKill: true, fencing: true, hashedPassword: true, enumerable: true, warmPool: true, loginRotation: true },
  checkTarget: checkTargetConfig,
  checkRole: checkRoleConfig,
  open: (config, password, options) => new PostgresTarget(config, password, options),
} as const satisfies EngineDefinition<PostgresTargetConfig, PostgresRoleConfig>;
