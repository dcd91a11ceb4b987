import { CredentialService } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { IdentityService } from "../../src/gen/leasehold/v1/identity_service_pb.ts";
import { LeaseService } from "../../src/gen/leasehold/v1/lease_service_pb.ts";
import { PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import type { Handlers } from "../../src/rpc/definition.ts";
import type { PipelineOptions } from "../../src/rpc/options.ts";
import type { Method, Pipeline } from "../../src/rpc/pipeline.ts";
import { identityService } from "../../src/rpc/services/identity.ts";
import { type Harness, some, startHarness } from "./rpc-harness.ts";

export interface Parts {
  readonly secrets?: Partial<Handlers<typeof SecretService>>;
  readonly leases?: Partial<Handlers<typeof LeaseService>>;
  readonly credentials?: Partial<Handlers<typeof CredentialService>>;
  readonly policies?: Partial<Handlers<typeof PolicyService>>;
  readonly options?: Partial<PipelineOptions>;
}

/** A server with the given handlers; GetSecret answers version 3 unless told otherwise; read, write and list are allowed on secrets/a/**. */
export async function startParts({ secrets = {}, leases = {}, credentials = {}, policies = {}, options }: Parts = {}): Promise<Harness> {
  const bind = (pipeline: Pipeline): Method[] => [
    ...pipeline.bind(SecretService, some(SecretService, { getSecret: (r) => ({ path: r.path, version: 3n }), ...secrets })),
    ...pipeline.bind(LeaseService, some(LeaseService, leases)),
    ...pipeline.bind(CredentialService, some(CredentialService, credentials)),
    ...pipeline.bind(PolicyService, some(PolicyService, policies)),
    ...pipeline.bind(
      IdentityService,
      identityService(() => ["p1", "p2"]),
    ),
  ];
  const harness = await startHarness(bind, options);
  harness.access.allowed.push(["read", "secrets/a/**"], ["write", "secrets/a/**"], ["list", "secrets/a/**"]);
  return harness;
}
