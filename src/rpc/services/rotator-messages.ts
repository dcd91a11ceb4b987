import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type PasswordPolicy, PasswordPolicySchema } from "../../gen/leasehold/v1/operator_service_pb.ts";
import type {
  GeneratedFieldSchema,
  GeneratedRotator,
  KeyPair_Algorithm as Algorithm,
  RandomBytes_Encoding as Encoding,
  Rotation,
  RotationSchema,
} from "../../gen/leasehold/v1/rotation_service_pb.ts";
import { invalid } from "../../base/errors.ts";
import type { PasswordPolicyConfig } from "../../model/target.ts";
import type { RotationRecord } from "../../model/rotation.ts";
import type { GeneratedConfig, GeneratedField } from "../../rotation/registry.ts";
import { outsideConfig, outsideMessage } from "./outside-rotator-messages.ts";

// With outside-rotator-messages.ts the one place that knows which message of the API is which rotator's configuration.

type RotatorMessage = NonNullable<MessageInitShape<typeof RotationSchema>["rotator"]>;

const MUST_BE_SET = "must be set: generated, postgres_single_user, postgres_alternating_users, redis_acl, webhook or grpc";

/** Throws REQUEST_INVALID. */
export function rotatorConfig(rotation: Rotation): { readonly rotator: string; readonly config: object } {
  const { rotator } = rotation;
  switch (rotator.case) {
    case "generated":
      return { rotator: "generated", config: generatedConfig(rotator.value) };
    case undefined:
      throw invalid("rotation.rotator", MUST_BE_SET);
    default: {
      const outside = outsideConfig(rotation, passwordPolicyConfig);
      if (outside === undefined) throw invalid("rotation.rotator", "is not known to this broker");
      return outside;
    }
  }
}

export function rotatorMessage({ rotator, config }: Pick<RotationRecord, "rotator" | "config">): RotatorMessage {
  switch (rotator) {
    case "generated":
      return { case: "generated", value: generatedMessage(config as GeneratedConfig) };
    default:
      return outsideMessage({ rotator, config });
  }
}

/** By the enums' numbers; 0, left out, is the same as 1. */
const ENCODINGS = ["base64url", "base64url", "hex", "raw"] as const satisfies readonly Extract<GeneratedField, { kind: "random" }>["encoding"][];
const ALGORITHMS = ["ed25519", "ed25519", "x25519", "ec_p256", "ec_p384", "rsa_2048", "rsa_3072", "rsa_4096"] as const satisfies readonly Extract<
  GeneratedField,
  { kind: "key_pair" }
>["algorithm"][];

function generatedConfig({ fields }: GeneratedRotator): GeneratedConfig {
  return {
    fields: fields.map(({ name, publicName, kind }, i): GeneratedField => {
      if (publicName !== "" && kind.case !== "keyPair") throw invalid(`rotation.generated.fields[${i}].public_name`, "is for a key pair");
      switch (kind.case) {
        case "password":
          return { name, kind: "password", policy: passwordPolicyConfig(kind.value) };
        case "random":
          return { name, kind: "random", size: kind.value.size, encoding: ENCODINGS[kind.value.encoding] ?? "base64url" };
        case "keyPair":
          return { name, kind: "key_pair", publicName: publicName || `${name}_public`, algorithm: ALGORITHMS[kind.value.algorithm] ?? "ed25519" };
        case undefined:
          throw invalid(`rotation.generated.fields[${i}].kind`, "must be set: password, random or key_pair");
      }
    }),
  };
}

function generatedMessage({ fields }: GeneratedConfig): { fields: MessageInitShape<typeof GeneratedFieldSchema>[] } {
  return {
    fields: fields.map((field): MessageInitShape<typeof GeneratedFieldSchema> => {
      switch (field.kind) {
        case "password":
          return { name: field.name, kind: { case: "password", value: create(PasswordPolicySchema, field.policy ?? {}) } };
        case "random":
          return { name: field.name, kind: { case: "random", value: { size: field.size, encoding: ENCODINGS.lastIndexOf(field.encoding) as Encoding } } };
        case "key_pair":
          return {
            name: field.name,
            publicName: field.publicName,
            kind: { case: "keyPair", value: { algorithm: ALGORITHMS.lastIndexOf(field.algorithm) as Algorithm } },
          };
      }
    }),
  };
}

/** An empty policy (`password: {}`) is the default one. */
export function passwordPolicyConfig(policy: PasswordPolicy | undefined): PasswordPolicyConfig | undefined {
  if (policy === undefined) return undefined;
  const { length, minUpper, minLower, minDigits, minSymbols } = policy;
  if (length === 0 && minUpper === 0 && minLower === 0 && minDigits === 0 && minSymbols === 0) return undefined;
  return { length: length || 32, minUpper, minLower, minDigits, minSymbols };
}
