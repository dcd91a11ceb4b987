import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { SecretPayloadSchema } from "../../src/gen/leasehold/internal/v1/stored_pb.ts";
import { GetSecretResponseSchema } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import type { SecretMeta, VersionMeta } from "../../src/model/secret.ts";
import { encodeSecret } from "../../src/rpc/services/secret-answer.ts";

const secret: SecretMeta = {
  uid: "0b9d7f4c-4c1e-4a51-9a55-0f4f1e2d3c4b",
  path: "secrets/demo/key",
  latestVersion: 3,
  currentVersion: 3,
  previousVersion: 2,
  pendingVersion: 0,
  labels: {},
  annotations: {},
  maxVersions: 10,
  generation: 7,
  createdAt: 1_700_000_000_000,
  updatedAt: 1_700_000_000_000,
  deletedAt: undefined,
  purgeAt: undefined,
};
const version: VersionMeta = {
  version: 3,
  createdAt: 1_700_000_000_123,
  createdBy: "spiffe://acme.test/admin",
  notBefore: undefined,
  expireAt: 1_800_000_000_000,
  deletedAt: undefined,
  destroyedAt: undefined,
};

function payload(): Uint8Array {
  const data = { user: { kind: { case: "text" as const, value: "admin" } }, key: { kind: { case: "bytes" as const, value: new Uint8Array([0, 1, 255]) } } };
  return toBinary(SecretPayloadSchema, create(SecretPayloadSchema, { data }));
}

describe("the answer of a read, made of bytes", () => {
  it("is the GetSecretResponse, each time", () => {
    for (let i = 0; i < 2; i++) {
      const read = { secret, version, payload: payload() };
      const answer = fromBinary(GetSecretResponseSchema, new Uint8Array(encodeSecret(read).bytes));
      expect(answer).toEqual(
        create(GetSecretResponseSchema, {
          path: secret.path,
          uid: secret.uid,
          version: 3n,
          data: fromBinary(SecretPayloadSchema, payload()).data,
          stagingLabels: ["CURRENT"],
          createTime: { seconds: 1_700_000_000n, nanos: 123_000_000 },
          expireTime: { seconds: 1_800_000_000n, nanos: 0 },
        }),
      );
    }
  });

  it("wipes the payload it was given", () => {
    const read = { secret, version, payload: payload() };
    encodeSecret(read);
    expect(read.payload.every((byte) => byte === 0)).toBe(true);
  });

  it("does not answer with the labels of another state of the secret", () => {
    encodeSecret({ secret, version, payload: payload() });
    const rolledBack = { ...secret, currentVersion: 2, previousVersion: 3, generation: 8 };
    const { bytes } = encodeSecret({ secret: rolledBack, version, payload: payload() });
    expect(fromBinary(GetSecretResponseSchema, new Uint8Array(bytes)).stagingLabels).toEqual(["PREVIOUS"]);
  });
});
