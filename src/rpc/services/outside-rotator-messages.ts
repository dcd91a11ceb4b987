import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type PasswordPolicy, PasswordPolicySchema } from "../../gen/leasehold/v1/operator_service_pb.ts";
import type { Rotation, RotationSchema } from "../../gen/leasehold/v1/rotation_service_pb.ts";
import type { PasswordPolicyConfig } from "../../model/target.ts";
import type { RotationRecord } from "../../model/rotation.ts";
import {
  DEFAULT_FIELD,
  DEFAULT_STEP_TIMEOUT_MS,
  type GrpcConfig,
  type PostgresAlternatingUsersConfig,
  type PostgresSingleUserConfig,
  type RedisAclConfig,
  type WebhookConfig,
} from "../../rotation/registry.ts";

type RotatorMessage = NonNullable<MessageInitShape<typeof RotationSchema>["rotator"]>;
type Policy = (policy: PasswordPolicy | undefined) => PasswordPolicyConfig | undefined;

/** Configuration of a rotator that touches the outside, by its message; undefined for others. */
export function outsideConfig({ rotator }: Rotation, policyOf: Policy): { readonly rotator: string; readonly config: object } | undefined {
  switch (rotator.case) {
    case "postgresSingleUser": {
      const { target, username, database, passwordPolicy } = rotator.value;
      const config: PostgresSingleUserConfig = { target, username, database: database || undefined, passwordPolicy: policyOf(passwordPolicy) };
      return { rotator: "postgres_single_user", config };
    }
    case "postgresAlternatingUsers": {
      const { target, usernames, owner, database, passwordPolicy } = rotator.value;
      const config: PostgresAlternatingUsersConfig = {
        target,
        usernames: [...usernames],
        owner,
        database: database || undefined,
        passwordPolicy: policyOf(passwordPolicy),
      };
      return { rotator: "postgres_alternating_users", config };
    }
    case "redisAcl": {
      const { target, username, dropPrevious, passwordPolicy } = rotator.value;
      return { rotator: "redis_acl", config: { target, username, dropPrevious, passwordPolicy: policyOf(passwordPolicy) } satisfies RedisAclConfig };
    }
    case "webhook": {
      const { url, caPem, signingSecret } = rotator.value;
      return { rotator: "webhook", config: { url, caPem: caPem || undefined, signingSecret, ...common(rotator.value, policyOf) } satisfies WebhookConfig };
    }
    case "grpc": {
      const { address, caPem, clientSecret, spiffeId } = rotator.value;
      return { rotator: "grpc", config: { address, caPem, clientSecret, spiffeId, ...common(rotator.value, policyOf) } satisfies GrpcConfig };
    }
    default:
      return undefined;
  }
}

export function outsideMessage({ rotator, config }: Pick<RotationRecord, "rotator" | "config">): RotatorMessage {
  switch (rotator) {
    case "postgres_single_user": {
      const { target, username, database, passwordPolicy } = config as PostgresSingleUserConfig;
      return { case: "postgresSingleUser", value: { target, username, database: database ?? "", ...policyMessage(passwordPolicy) } };
    }
    case "postgres_alternating_users": {
      const { target, usernames, owner, database, passwordPolicy } = config as PostgresAlternatingUsersConfig;
      return {
        case: "postgresAlternatingUsers",
        value: { target, usernames: [...usernames], owner, database: database ?? "", ...policyMessage(passwordPolicy) },
      };
    }
    case "redis_acl": {
      const { target, username, dropPrevious, passwordPolicy } = config as RedisAclConfig;
      return { case: "redisAcl", value: { target, username, dropPrevious, ...policyMessage(passwordPolicy) } };
    }
    case "webhook": {
      const { url, caPem, signingSecret, ...rest } = config as WebhookConfig;
      return { case: "webhook", value: { url, caPem: caPem ?? "", signingSecret, ...commonMessage(rest) } };
    }
    case "grpc": {
      const { address, caPem, clientSecret, spiffeId, ...rest } = config as GrpcConfig;
      return { case: "grpc", value: { address, caPem, clientSecret, spiffeId, ...commonMessage(rest) } };
    }
    default:
      return { case: undefined };
  }
}

type Common = Pick<WebhookConfig, "timeoutMs" | "parameters" | "field" | "passwordPolicy">;

function common(value: Extract<Rotation["rotator"], { case: "webhook" | "grpc" }>["value"], policyOf: Policy): Common {
  return {
    timeoutMs: value.timeout === undefined ? DEFAULT_STEP_TIMEOUT_MS : durationMs(value.timeout),
    parameters: { ...value.parameters },
    field: value.field || DEFAULT_FIELD,
    passwordPolicy: policyOf(value.passwordPolicy),
  };
}

function commonMessage({ timeoutMs, parameters, field, passwordPolicy }: Common) {
  return {
    ...(timeoutMs === DEFAULT_STEP_TIMEOUT_MS ? {} : { timeout: durationFromMs(timeoutMs) }),
    parameters: { ...parameters },
    field: field === DEFAULT_FIELD ? "" : field,
    ...policyMessage(passwordPolicy),
  };
}

function policyMessage(policy: PasswordPolicyConfig | undefined) {
  return policy === undefined ? {} : { passwordPolicy: create(PasswordPolicySchema, policy) };
}
