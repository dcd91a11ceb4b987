import type { Value } from "../gen/leasehold/v1/value_pb.ts";

/** A secret's data or a credential's: text, or bytes. */
export type Data = Readonly<Record<string, string | Uint8Array>>;

export function plainValues(data: Readonly<Record<string, Value>>): Data {
  return Object.fromEntries(Object.entries(data).map(([name, { kind }]) => [name, kind.value ?? ""]));
}
