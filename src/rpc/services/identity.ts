import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { IdentityService } from "../../gen/leasehold/v1/identity_service_pb.ts";
import type { Principal } from "../../model/principal.ts";
import type { Handlers } from "../definition.ts";

/** @param policiesOf names of the policies that speak of the principal, in name order. */
export function identityService(policiesOf: (principal: Principal) => readonly string[]): Handlers<typeof IdentityService> {
  return {
    whoAmI(_request, call) {
      const { principal, connection } = call;
      return {
        principal: principal.id,
        trustDomain: principal.trustDomain,
        certificateExpireTime: timestampFromMs(connection.notAfter),
        certificateSerial: connection.serial,
        policies: [...policiesOf(principal)],
      };
    },
  };
}
