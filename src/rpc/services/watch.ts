import { fromBinary } from "@bufbuild/protobuf";
import { SecretPayloadSchema } from "../../gen/leasehold/internal/v1/stored_pb.ts";
import { EventType, type WatchService } from "../../gen/leasehold/v1/watch_service_pb.ts";
import { invalid, isReason, LeaseholdError } from "../../base/errors.ts";
import type { Change } from "../../model/event.ts";
import { type PathScope, parseScope } from "../../model/path.ts";
import type { SecretReader } from "../../secrets/read.ts";
import type { Db } from "../../store/db.ts";
import type { Feed } from "../../watch/feed.ts";
import type { Hub } from "../../watch/hub.ts";
import { resumeToken } from "../../watch/resume-token.ts";
import { watch } from "../../watch/watch.ts";
import type { Authorized } from "../call.ts";
import type { Resources } from "../collaborators.ts";
import type { Handlers } from "../definition.ts";
import { composeResponse, encodeEvent, type EventMessage, eventOf, sharedEvent } from "./watch-message.ts";

export interface WatchServiceDeps {
  readonly db: Db;
  readonly feed: Feed;
  readonly hub: Hub;
  readonly reader: SecretReader;
  readonly resources: Pick<Resources, "lease">;
}

/** Events in one message at most, and the bytes of values that end a message early. */
const MAX_EVENTS = 200;
const MAX_VALUE_BYTES = 1024 * 1024;

export function watchService(deps: WatchServiceDeps): Handlers<typeof WatchService> {
  return {
    async watch(request, call, out) {
      if (request.resumeToken !== "" && request.snapshot) throw invalid("resume_token", "must not be set together with snapshot");
      const scopes = request.paths.map((path) => parseScope(path));
      await authorizeScopes(deps, call, scopes);
      const query = { scopes, types: new Set<number>(request.types), resumeToken: request.resumeToken, snapshot: request.snapshot };
      let token = request.resumeToken;
      out.resumeToken = () => token;
      try {
        for await (const step of watch(deps.db, deps.feed, deps.hub, query, call.signal)) {
          // A policy may have changed since the watch began: what it no longer covers ends it.
          authorizeStill(call, scopes);
          let events: Uint8Array[] = [];
          let bytes = 0;
          const send = (revision: number, end: boolean, resume: string): Promise<void> => {
            const bookmark = end && (step.bookmark || (events.length === 0 && step.changes.length > 0));
            const parts = { epoch: String(step.epoch), revision, resumeToken: resume, events, bookmark, snapshotEnd: end && step.snapshotEnd };
            events = [];
            bytes = 0;
            return out.write(composeResponse(parts, !request.includeValues));
          };
          for (const change of step.changes) {
            if (!isVisible(call, scopes, change)) continue;
            if (request.includeValues && (change.type === EventType.SECRET_VERSION_CREATED || change.type === EventType.ROTATION_SUCCEEDED)) {
              const event = eventOf(change, step.snapshot);
              bytes += await addValues(deps.reader, call, event, change);
              events.push(encodeEvent(event));
            } else events.push(step.snapshot ? encodeEvent(eventOf(change, true)) : sharedEvent(change));
            if (events.length < MAX_EVENTS && bytes < MAX_VALUE_BYTES) continue;
            // The token stays where it was until the whole step is out: a resume repeats, it never skips.
            await send(step.snapshot ? 0 : change.revision, false, token);
          }
          if (!step.snapshot) token = resumeToken({ epoch: step.epoch, revision: step.revision });
          await send(step.revision, true, step.snapshot || (query.snapshot && step.revision === 0) ? "" : token);
        }
      } catch (error) {
        if (!isReason(error, "WATCH_TOO_SLOW")) throw error;
        throw new LeaseholdError("WATCH_TOO_SLOW", "slow", { metadata: { resume_token: token } });
      }
    },
  };
}

/** Every path must be allowed at the start: an exact one by itself, a folder in at least a part, a lease by ownership or its role's path. */
async function authorizeScopes(deps: WatchServiceDeps, call: Authorized, scopes: readonly PathScope[]): Promise<void> {
  for (const scope of scopes) {
    if (!scope.prefix.startsWith("leases/")) {
      if (scope.exact) call.authorizeItem(scope.prefix);
      else call.authorizeScope(scope);
      continue;
    }
    if (!scope.exact) throw invalid("paths", "can't watch leases/**; watch the role paths, credentials/**");
    const lease = await deps.resources.lease(scope.prefix.slice("leases/".length));
    // `allows` is asked of the owner too, so that the pipeline sees the question; the answer does not matter to him.
    if (lease?.owner === call.principal.id) call.allows(lease.rolePath);
    else if (!call.allows(lease?.rolePath ?? scope.prefix)) {
      // The same words whether the lease exists or not.
      throw new LeaseholdError("PERMISSION_DENIED", "denied", { metadata: { capability: "watch", path: scope.prefix } });
    }
  }
}

function authorizeStill(call: Authorized, scopes: readonly PathScope[]): void {
  for (const scope of scopes) {
    if (scope.prefix.startsWith("leases/")) continue;
    if (scope.exact) call.authorizeItem(scope.prefix);
    else call.authorizeScope(scope);
  }
}

/** By the policy of now, which is at least as new as the change. Owners see their own leases where they asked for them by id. */
function isVisible(call: Authorized, scopes: readonly PathScope[], change: Change): boolean {
  if (call.allows(change.path)) return true;
  if (change.leaseId === undefined || change.principal !== call.principal.id) return false;
  return scopes.some((scope) => scope.exact && scope.prefix === `leases/${change.leaseId}`);
}

/** Reads the version for an event that is to carry its value; what can't be read now leaves the event without. Answers the bytes added. */
async function addValues(reader: SecretReader, call: Authorized, event: EventMessage, change: Change): Promise<number> {
  if (!call.allows(change.path, "read")) {
    call.recordItem({ path: change.path, outcome: "PERMISSION_DENIED", capability: "read" });
    return 0;
  }
  try {
    const { payload } = await reader.get(change.path, { kind: "version", version: change.version });
    event.data = fromBinary(SecretPayloadSchema, payload).data;
    call.recordItem({ path: change.path, outcome: "ok", version: change.version, capability: "read" });
    return payload.length;
  } catch (error) {
    if (!(error instanceof LeaseholdError) || error.reason === "STORE_UNAVAILABLE") throw error;
    call.recordItem({ path: change.path, outcome: error.reason, capability: "read" });
    return 0;
  }
}
