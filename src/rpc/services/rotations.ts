import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  AbortRotationRequestSchema,
  DeleteRotationRequestSchema,
  PutRotationRequestSchema,
  ResumeRotationRequestSchema,
  RotateNowRequestSchema,
  type RotationSchema,
  type RotationService,
} from "../../gen/leasehold/v1/rotation_service_pb.ts";
import { LeaseholdError } from "../../base/errors.ts";
import { parsePrefix, type PathScope } from "../../model/path.ts";
import { listVisibleRotations } from "../../rotation/list.ts";
import type { Rotations } from "../../rotation/rotations.ts";
import type { Written } from "../../rotation/write.ts";
import type { Db } from "../../store/db.ts";
import { findRotation } from "../../store/rotations.ts";
import type { Authorized } from "../call.ts";
import type { Handlers } from "../definition.ts";
import type { PageTokens } from "../page-token.ts";
import type { RequestKeys } from "../request-key.ts";
import { secretOfRotation } from "../rotation-path.ts";
import { rotationInput, rotationMessage } from "./rotation-messages.ts";

const FIRST_PAGE = 100;
const ROOT = "rotations/";

export function rotationService(db: Db, rotations: Rotations, pages: PageTokens, requests: RequestKeys): Handlers<typeof RotationService> {
  const { writer } = rotations;
  const stored = async (call: Authorized): Promise<MessageInitShape<typeof RotationSchema>> => {
    const found = await findRotation(db, secretOfRotation(call.path));
    if (found === undefined) throw new LeaseholdError("ROTATION_NOT_FOUND");
    return rotationMessage(found);
  };
  const answer = async (call: Authorized, written: Written) => {
    call.recorded = written.recorded;
    return { rotation: await stored(call), revision: BigInt(written.revision) };
  };

  return {
    async putRotation(request, call) {
      const input = rotationInput(request.rotation!);
      call.authorizeItem(input.path, "write");
      // What the broker's rights would do for him, he must be allowed himself.
      for (const need of writer.needs(input)) call.authorizeItem(need.path, need.capability);
      const write = { actor: call.actor(), request: requests.of(PutRotationRequestSchema, request) };
      const written = await writer.put(input, request.etag, request.rotateNow, request.dryRun, write);
      if (!request.dryRun) return answer(call, written);
      return {};
    },

    async getRotation(_request, call) {
      return { rotation: await stored(call) };
    },

    async listRotations(request, call) {
      const filter = { prefix: request.prefix, stuck: request.stuck };
      const after = pages.open("ListRotations", filter, call.principal, request.pageToken) ?? "";
      const page = await listVisibleRotations(db, {
        scope: scopeOf(request.prefix),
        allowed: call.allowedPrefixes().flatMap(secretsOf),
        may: (path) => call.allows(`${ROOT}${path}`) && call.allows(path),
        stuck: request.stuck,
        after,
        pageSize: request.pageSize || FIRST_PAGE,
      });
      return {
        rotations: page.items.map(rotationMessage),
        nextPageToken: page.next === undefined ? "" : pages.seal("ListRotations", filter, call.principal, page.next),
      };
    },

    async deleteRotation(request, call) {
      const write = { actor: call.actor(), request: requests.of(DeleteRotationRequestSchema, request) };
      const written = await writer.delete(secretOfRotation(call.path), request.etag, write);
      call.recorded = written.recorded;
      return { revision: BigInt(written.revision) };
    },

    rotateNow: async (request, call) =>
      answer(call, await writer.rotateNow(secretOfRotation(call.path), { actor: call.actor(), request: requests.of(RotateNowRequestSchema, request) })),
    abortRotation: async (request, call) =>
      answer(call, await rotations.abort(secretOfRotation(call.path), { actor: call.actor(), request: requests.of(AbortRotationRequestSchema, request) })),
    resumeRotation: async (request, call) =>
      answer(call, await writer.resume(secretOfRotation(call.path), { actor: call.actor(), request: requests.of(ResumeRotationRequestSchema, request) })),
  };
}

function scopeOf(prefix: string): PathScope {
  if (prefix === "") return { prefix: "secrets/", exact: false };
  const folder = parsePrefix(prefix);
  if (folder === ROOT) return { prefix: "secrets/", exact: false };
  if (!folder.startsWith(`${ROOT}secrets/`)) throw new LeaseholdError("PATH_INVALID");
  return { prefix: folder.slice(ROOT.length), exact: false };
}

/** What a permission on rotations means for their secrets' paths; one that covers all rotations covers all secrets here. */
function secretsOf({ prefix, exact }: PathScope): PathScope[] {
  if (prefix.startsWith(`${ROOT}secrets/`)) return [{ prefix: prefix.slice(ROOT.length), exact }];
  return !exact && `${ROOT}secrets/`.startsWith(prefix) ? [{ prefix: "secrets/", exact: false }] : [];
}
