import { type CredentialService, IssueCredentialRequestSchema } from "../../gen/leasehold/v1/credential_service_pb.ts";
import type { LeaseIssuer } from "../../leases/issue.ts";
import { durationMs } from "../convert.ts";
import type { Handlers } from "../definition.ts";
import type { RequestKeys } from "../request-key.ts";
import { leaseMessage } from "./lease-messages.ts";

export function credentialService(issuer: LeaseIssuer, requests: RequestKeys): Handlers<typeof CredentialService> {
  return {
    async issueCredential(request, call) {
      const key = requests.of(IssueCredentialRequestSchema, request);
      const issued = await issuer.issue({ path: call.path, ttlMs: durationMs(request.ttl, "ttl"), actor: call.actor(), request: key });
      call.recorded = issued.recorded;
      call.lease = issued.lease.id;
      call.onUndelivered(() => void issuer.undelivered(issued.lease));
      const data = { ...issued.lease.connection, password: issued.password.revealText() };
      issued.password.wipe();
      return {
        lease: leaseMessage(issued.lease),
        data: Object.fromEntries(Object.entries(data).map(([name, value]) => [name, { kind: { case: "text" as const, value } }])),
        revision: BigInt(issued.revision),
      };
    },
  };
}
