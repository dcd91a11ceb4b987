import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { SecretPayloadSchema } from "../gen/leasehold/internal/v1/stored_pb.ts";
import { Sensitive } from "../base/sensitive.ts";
import { MAX_DATA_BYTES, type SecretData, type SecretValue } from "../model/secret.ts";

/** What is sealed for one version: the bytes are those of a SecretPayload, so that a read need not be encoded again. For the caller to wipe. */
export function encodePayload(data: SecretData): Uint8Array {
  const fields = Object.fromEntries(
    [...data].map(([name, { kind, value }]) => [
      name,
      { kind: kind === "text" ? { case: "text" as const, value: value.revealText() } : { case: "bytes" as const, value: value.reveal() } },
    ]),
  );
  return toBinary(SecretPayloadSchema, create(SecretPayloadSchema, { data: fields }));
}

/** Takes the payload apart into copies; the caller wipes both. */
export function decodePayload(payload: Uint8Array): SecretData {
  const { data } = fromBinary(SecretPayloadSchema, payload);
  return new Map(Object.entries(data).map(([name, { kind }]): [string, SecretValue] => [name, valueOf(kind)]));
}

function valueOf(
  kind: { readonly case: "text"; readonly value: string } | { readonly case: "bytes"; readonly value: Uint8Array } | { readonly case: undefined },
): SecretValue {
  if (kind.case === "bytes") return { kind: "bytes", value: new Sensitive(Uint8Array.from(kind.value)) };
  return { kind: "text", value: Sensitive.text(kind.case === "text" ? kind.value : "") };
}

/** Whether a secret may hold this: 1 to 64 fields, at most 64 KiB over names and values. */
export function fitsSecret(data: SecretData): boolean {
  if (data.size < 1 || data.size > 64) return false;
  let bytes = 0;
  for (const [name, { value }] of data) {
    if (name === "" || Buffer.byteLength(name) > 128) return false;
    bytes += Buffer.byteLength(name) + value.reveal().length;
  }
  return bytes <= MAX_DATA_BYTES;
}

export function wipe(data: SecretData): void {
  for (const { value } of data.values()) value.wipe();
}
