import type { MessageInitShape } from "@bufbuild/protobuf";
import { Sensitive } from "../../base/sensitive.ts";
import type { Value, ValueSchema } from "../../gen/leasehold/v1/value_pb.ts";
import type { SecretData, SecretValue } from "../../model/secret.ts";
import { refused } from "../outside.ts";

export function toValues(data: SecretData | undefined): Record<string, MessageInitShape<typeof ValueSchema>> {
  const entries = [...(data ?? new Map<string, SecretValue>())];
  return Object.fromEntries(
    entries.map(([name, { kind, value }]) => [
      name,
      { kind: kind === "text" ? { case: "text", value: value.revealText() } : { case: "bytes", value: value.reveal() } },
    ]),
  );
}

/** Throws TARGET_MISCONFIGURED `malformed_answer` for a value that is neither text nor bytes. */
export function fromValues(values: Readonly<Record<string, Value>>): SecretData {
  return new Map(
    Object.entries(values).map(([name, { kind }]): [string, SecretValue] => {
      if (kind.case === "text") return [name, { kind: "text", value: Sensitive.text(kind.value) }];
      if (kind.case === "bytes") return [name, { kind: "bytes", value: new Sensitive(kind.value) }];
      throw refused("malformed_answer");
    }),
  );
}
