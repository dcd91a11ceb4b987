import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { GetSecretResponseSchema } from "../../gen/leasehold/v1/secret_service_pb.ts";
import { type SecretMeta, stagingLabels, type VersionMeta } from "../../model/secret.ts";
import type { ReadSecret } from "../../secrets/read.ts";
import { timestamp } from "../convert.ts";
import { Encoded } from "../encoded.ts";

interface Head {
  readonly secret: SecretMeta;
  readonly bytes: Uint8Array;
}

/** Everything of an answer but the data, while the read cache holds the version: names, numbers and times, no secret. */
const heads = new WeakMap<VersionMeta, Head>();

/** GetSecretResponse: its fields in clear, then the payload as it was sealed, whose field has the number of `data`. Wipes `read.payload`. */
export function encodeSecret(read: ReadSecret): Encoded<typeof GetSecretResponseSchema> {
  const head = headOf(read);
  const { payload } = read;
  const bytes = Buffer.allocUnsafe(head.length + payload.length);
  bytes.set(head);
  bytes.set(payload, head.length);
  payload.fill(0);
  return new Encoded(bytes);
}

function headOf({ secret, version }: ReadSecret): Uint8Array {
  const known = heads.get(version);
  // Staging labels are the secret's: a version that was read with another state of it does not count.
  if (known?.secret === secret) return known.bytes;
  const message: MessageInitShape<typeof GetSecretResponseSchema> = {
    path: secret.path,
    uid: secret.uid,
    version: BigInt(version.version),
    stagingLabels: stagingLabels(secret, version.version),
    createTime: timestamp(version.createdAt),
    ...(version.expireAt === undefined ? {} : { expireTime: timestamp(version.expireAt) }),
  };
  const bytes = toBinary(GetSecretResponseSchema, create(GetSecretResponseSchema, message));
  heads.set(version, { secret, bytes });
  return bytes;
}
