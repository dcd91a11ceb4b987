import {
  ForgetLeaseRequestSchema,
  type LeaseService,
  RenewLeaseRequestSchema,
  RevokeLeaseRequestSchema,
  RevokeLeasesRequestSchema,
} from "../../gen/leasehold/v1/lease_service_pb.ts";
import { Lease_State as State } from "../../gen/leasehold/v1/lease_pb.ts";
import { invalid, LeaseholdError } from "../../base/errors.ts";
import { listVisibleLeases } from "../../leases/list.ts";
import type { LeaseRenewer } from "../../leases/renew.ts";
import type { LeaseRevoker } from "../../leases/revoke.ts";
import { LIVE_STATES, type LeaseState } from "../../model/lease.ts";
import { parsePath, parsePrefix, type PathScope } from "../../model/path.ts";
import { rangeOf } from "../../model/range.ts";
import type { Operations } from "../../operations/operations.ts";
import type { Db } from "../../store/db.ts";
import { findLease } from "../../store/leases.ts";
import type { LedgerClock } from "../../store/ledger-clock.ts";
import { durationMs } from "../convert.ts";
import type { Handlers } from "../definition.ts";
import type { PageTokens } from "../page-token.ts";
import type { RequestKeys } from "../request-key.ts";
import { leaseMessage } from "./lease-messages.ts";
import { operationMessage } from "./operations.ts";

export interface LeaseServiceDeps {
  readonly db: Db;
  readonly renewer: LeaseRenewer;
  readonly revoker: LeaseRevoker;
  readonly operations: Operations;
  readonly clock: LedgerClock;
  readonly pages: PageTokens;
  readonly requests: RequestKeys;
}

const FIRST_PAGE = 100;
/** What the answer needs of the deadline: a lease that is not gone by then is answered as REVOKING. */
const ANSWER_MS = 500;

export function leaseService(deps: LeaseServiceDeps): Handlers<typeof LeaseService> {
  const { db, requests, pages } = deps;
  const idOf = (path: string): string => path.slice("leases/".length);

  return {
    async getLease(_request, call) {
      const lease = await findLease(db, idOf(call.path));
      if (lease === undefined) throw new LeaseholdError("LEASE_NOT_FOUND");
      return { lease: leaseMessage(lease) };
    },

    async listLeases(request, call) {
      const filter = { prefix: request.prefix, principal: request.principal, states: request.states.map(String), stalled: request.stalled };
      const token = pages.open("ListLeases", filter, call.principal, request.pageToken);
      const [at, id] = token?.split(" ") ?? [];
      const page = await listVisibleLeases(db, {
        scope: request.prefix === "" ? undefined : scopeOf(request.prefix),
        principal: request.principal,
        states: statesOf(request.states),
        stalled: request.stalled,
        viewer: call.principal.id,
        allowed: call.allowedPrefixes(),
        may: (lease) => call.allows(lease.path) || lease.principal === call.principal.id,
        after: at === undefined || id === undefined ? undefined : { issuedAt: Number(at), id },
        pageSize: request.pageSize || FIRST_PAGE,
      });
      const next = page.next === undefined ? "" : pages.seal("ListLeases", filter, call.principal, `${page.next.issuedAt} ${page.next.id}`);
      return { leases: page.items.map(leaseMessage), nextPageToken: next };
    },

    async renewLease(request, call) {
      // Zero means the role's default, as left out does; it never means for ever (lesson 11).
      const increment = durationMs(request.increment, "increment") || undefined;
      const lease = { id: idOf(call.path), path: call.stored?.kind === "lease" ? call.stored.rolePath : call.path };
      const renewed = await deps.renewer.renew(lease, increment, call.actor(), requests.of(RenewLeaseRequestSchema, request));
      call.recorded = renewed.recorded;
      return { lease: leaseMessage(renewed.lease), limitedBy: renewed.limited ? "max_expire_time" : "", revision: BigInt(renewed.revision) };
    },

    async revokeLease(request, call) {
      const patienceMs = call.deadlineAt - Date.now() - ANSWER_MS;
      const revoked = await deps.revoker.revoke(idOf(call.path), call.actor(), requests.of(RevokeLeaseRequestSchema, request), patienceMs);
      call.recorded = revoked.recorded;
      return { lease: leaseMessage(revoked.lease), revision: BigInt(revoked.revision) };
    },

    async forgetLease(request, call) {
      const lease = await findLease(db, idOf(call.path));
      if (lease === undefined) throw new LeaseholdError("LEASE_NOT_FOUND");
      const actor = { ...call.actor(), cause: request.reason };
      const forgotten = await deps.revoker.forget(lease, false, actor, requests.of(ForgetLeaseRequestSchema, request));
      call.recorded = forgotten.recorded;
      return { lease: leaseMessage((await findLease(db, lease.id)) ?? lease), revision: BigInt(forgotten.revision) };
    },

    async revokeLeases(request, call) {
      if (request.prefix === "" && request.principal === "") throw invalid("prefix", "or principal must be set");
      const scope = request.prefix === "" ? undefined : scopeOf(request.prefix);
      call.authorizeScope(scope ?? { prefix: "credentials/", exact: false });
      const range = scope === undefined ? { from: "", to: "" } : rangeOf(scope);
      const args = { ...range, principal: request.principal, issuedBefore: Math.ceil(deps.clock.now()) };
      const path = scope?.prefix.replace(/\/$/, "") ?? "credentials";
      const started = await deps.operations.start("revoke-leases", path, args, call.actor(), requests.of(RevokeLeasesRequestSchema, request));
      call.recorded = started.recorded;
      return { operation: operationMessage(started.operation) };
    },
  };
}

/** A folder with its slash, or one role path. */
function scopeOf(prefix: string): PathScope {
  const scope = prefix.endsWith("/") ? { prefix: parsePrefix(prefix), exact: false } : { prefix: parsePath(prefix), exact: true };
  if (!scope.prefix.startsWith("credentials/")) throw new LeaseholdError("PATH_INVALID");
  return scope;
}

const STATES: Readonly<Partial<Record<State, LeaseState>>> = {
  [State.PENDING]: "PENDING",
  [State.ACTIVE]: "ACTIVE",
  [State.REVOKING]: "REVOKING",
  [State.REVOKED]: "REVOKED",
  [State.ROLLED_BACK]: "ROLLED_BACK",
  [State.READY]: "READY",
};

function statesOf(states: readonly State[]): readonly LeaseState[] {
  if (states.length === 0) return LIVE_STATES;
  return states.map((state) => {
    const known = STATES[state];
    if (known === undefined) throw invalid("states", "must be states of a lease");
    return known;
  });
}
