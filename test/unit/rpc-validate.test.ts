import { create, type DescMethod, type Message } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { CredentialService, IssueCredentialRequestSchema } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { OperatorService, PutRoleRequestSchema } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { GetSecretRequestSchema, PutSecretRequestSchema, SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { SERVICES } from "../../src/rpc/methods.ts";
import { broken, validatorOf } from "../../src/rpc/validate.ts";
import { surelyValid } from "../../src/rpc/validate-hot.ts";

function violations(method: DescMethod, request: Message) {
  try {
    validatorOf(method)(request);
    return [];
  } catch (error) {
    if (error instanceof LeaseholdError && error.reason === "REQUEST_INVALID") return error.violations.map((v) => v.field);
    throw error;
  }
}

test("every request's rules compile", () => {
  for (const service of Object.values(SERVICES)) for (const method of service.methods) expect(() => validatorOf(method)).not.toThrow();
});

test("finding 26: the hot validator of GetSecret says what the proto's rules say", () => {
  const hot = surelyValid(GetSecretRequestSchema)!;
  expect(hot(create(GetSecretRequestSchema, {}))).toBe(true);
  const int64 = fc.oneof(fc.bigInt({ min: -3n, max: 3n }), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }));
  const label = fc.oneof(
    fc.string({ maxLength: 70, unit: "binary" }),
    fc.string({ minLength: 60, maxLength: 70 }),
    fc.constantFrom("", "CURRENT", "x".repeat(64), "x".repeat(65)),
  );
  const selector = fc.oneof(
    fc.constant({ case: undefined }),
    int64.map((value) => ({ case: "version" as const, value })),
    label.map((value) => ({ case: "stagingLabel" as const, value })),
  );
  fc.assert(
    fc.property(fc.string(), selector, int64, (path, chosen, minRevision) => {
      const request = create(GetSecretRequestSchema, { path, selector: chosen, minRevision });
      const valid = broken(GetSecretRequestSchema, request).length === 0;
      if (hot(request)) expect(valid).toBe(true);
      // The other way round it may be stricter only for labels that count differently in UTF-16.
      else if (valid) expect(chosen.case === "stagingLabel" && [...chosen.value].length <= 64 && chosen.value.length > 64).toBe(true);
    }),
    { numRuns: 2000 },
  );
});

describe("fields", () => {
  test("are named by their path", () => {
    expect(violations(SecretService.method.getSecret, create(GetSecretRequestSchema, { selector: { case: "version", value: 0n } }))).toEqual(["version"]);
    const role = create(PutRoleRequestSchema, { role: { target: "", engine: { case: "postgres", value: { database: "", memberOf: ["x"] } } } });
    expect(violations(OperatorService.method.putRole, role)).toEqual(["role.target", "role.postgres.database"]);
  });

  test("keys of maps are not echoed", () => {
    const request = create(PutSecretRequestSchema, { data: { ["hunter2".repeat(40)]: { kind: { case: "text", value: "v" } } } });
    const fields = violations(SecretService.method.putSecret, request);
    expect(fields).toEqual(["data[…]"]);
  });

  test("request_id is a UUID or left out", () => {
    const of = (requestId: string) => violations(SecretService.method.putSecret, create(PutSecretRequestSchema, { data: { k: {} }, requestId }));
    for (const good of ["", "0199f3c2-8d1e-7000-8000-000000000001", "0199F3C2-8D1E-7000-8000-00000000000A"]) expect(of(good)).toEqual([]);
    for (const bad of ["x", "0199f3c28d1e70008000000000000001", "{0199f3c2-8d1e-7000-8000-000000001}"]) expect(of(bad)).toEqual(["request_id"]);
  });

  test("times and durations keep protobuf's own limits, nested ones too", () => {
    const ttl = (seconds: bigint, nanos: number) =>
      violations(CredentialService.method.issueCredential, create(IssueCredentialRequestSchema, { ttl: { seconds, nanos } }));
    expect(ttl(3600n, 0)).toEqual([]);
    for (const [s, n] of [
      [1n, -1],
      [-1n, 1],
      [0n, 1_000_000_000],
      [315_576_000_001n, 0],
    ] as const)
      expect(ttl(s, n)).toEqual(["ttl"]);
    const put = create(PutSecretRequestSchema, { data: { k: {} }, notBefore: { seconds: 253_402_300_800n }, expireTime: { seconds: 0n, nanos: -1 } });
    expect(violations(SecretService.method.putSecret, put)).toEqual(["not_before", "expire_time"]);
    const role = create(PutRoleRequestSchema, { role: { target: "t", defaultTtl: { seconds: 1n, nanos: -1 } } });
    expect(violations(OperatorService.method.putRole, role)).toEqual(["role.default_ttl"]);
  });
});
