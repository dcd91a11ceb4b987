import type { EngineDefinition } from "./engine.ts";
import { mysql } from "./mysql/definition.ts";
import { postgres } from "./postgres/definition.ts";
import { redis } from "./redis/definition.ts";

// What the API, the CLI and `dev` need of an engine's own folder, which they may not reach into.
export { bootstrapPostgres, bootstrapSql, brokerVerifier } from "./postgres/bootstrap.ts";
export { checkStatementSet } from "./postgres/statement-set.ts";
export type { MysqlRoleConfig, MysqlTargetConfig } from "./mysql/config.ts";
export type { RedisRoleConfig, RedisTargetConfig } from "./redis/config.ts";
export { DEFAULT_SCRAM_ITERATIONS, type PostgresRoleConfig, type PostgresTargetConfig } from "./postgres/config.ts";

/** Every engine the broker has: one folder and one line each. Typed by its own configuration; the API's `oneof` picks the matching one. */
export const ENGINES = [postgres, redis, mysql] as const satisfies readonly AnyEngine[];

/** An engine whose configuration types are not known here; who calls it has picked the configuration by the same name. */
type AnyEngine = EngineDefinition<never, never>;

export function engineByName(name: string): (typeof ENGINES)[number] | undefined {
  return ENGINES.find((engine) => engine.name === name);
}
