import type { DescMessage, Message } from "@bufbuild/protobuf";
import { type GetSecretRequest, GetSecretRequestSchema } from "../gen/leasehold/v1/secret_service_pb.ts";

/**
 * Cheap checks for hot requests: true only if the proto's rules surely hold (a test compares the two); anything else goes the long way,
 * which names the field. Saves 2–3 µs of a call that costs 50.
 */
export function surelyValid(schema: DescMessage): ((request: Message) => boolean) | undefined {
  return HOT[schema.typeName];
}

const HOT: Readonly<Record<string, ((request: Message) => boolean) | undefined>> = {
  [GetSecretRequestSchema.typeName]: (request) => getSecret(request as GetSecretRequest),
};

function getSecret({ selector, minRevision }: GetSecretRequest): boolean {
  if (minRevision < 0n) return false;
  if (selector.case === "version") return selector.value >= 1n;
  if (selector.case === "stagingLabel") return selector.value.length >= 1 && selector.value.length <= 64;
  return true;
}
