import type { EngineDefinition } from "../engine.ts";
import { ABILITIES } from "./abilities.ts";
import { checkRoleConfig, checkTargetConfig, type MysqlRoleConfig, type MysqlTargetConfig } from "./config.ts";
import { MysqlTarget } from "./target.ts";

/** MySQL 8 and MariaDB from 10.5: accounts of one server. */
export const mysql = {
  name: "mysql",
  abilities: ABILITIES,
  checkTarget: checkTargetConfig,
  checkRole: checkRoleConfig,
  open: (config, password, options) => new MysqlTarget(config, password, options),
} as const satisfies EngineDefinition<MysqlTargetConfig, MysqlRoleConfig>;
