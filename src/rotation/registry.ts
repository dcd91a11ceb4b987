import { generated } from "./generated/definition.ts";
import { grpc } from "./grpc/definition.ts";
import { postgresAlternatingUsers } from "./postgres-alternating-users/definition.ts";
import { postgresSingleUser } from "./postgres-single-user/definition.ts";
import { redisAcl } from "./redis-acl/definition.ts";
import type { RotatorDefinition } from "./rotator.ts";
import { webhook } from "./webhook/definition.ts";

// What the API needs of a rotator's own folder, which it may not reach into.
export type { GeneratedConfig, GeneratedField } from "./generated/config.ts";
export type { GrpcConfig } from "./grpc/config.ts";
export type { PostgresAlternatingUsersConfig } from "./postgres-alternating-users/definition.ts";
export type { PostgresSingleUserConfig } from "./postgres-single-user/definition.ts";
export type { RedisAclConfig } from "./redis-acl/definition.ts";
export type { WebhookConfig } from "./webhook/config.ts";
export { DEFAULT_FIELD, DEFAULT_STEP_TIMEOUT_MS } from "./outside.ts";

/** Every rotator the broker has: one folder and one line each. Typed by its own configuration; the API's `oneof` picks the matching one. */
export const ROTATORS = [generated, postgresSingleUser, postgresAlternatingUsers, redisAcl, webhook, grpc] as const satisfies readonly AnyRotator[];

/** A rotator whose configuration type is not known here; who calls it has picked the configuration by the same name. */
export type AnyRotator = RotatorDefinition<never>;

export function rotatorByName(name: string): RotatorDefinition | undefined {
  // The configurations in the store were checked by the rotator of that name when they were written.
  return ROTATORS.find((rotator): rotator is (typeof ROTATORS)[number] & RotatorDefinition => rotator.name === name);
}
