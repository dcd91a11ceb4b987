import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  DeleteSubscriptionRequestSchema,
  DiscardDeadLettersRequestSchema,
  PauseSubscriptionRequestSchema,
  PutSubscriptionRequestSchema,
  ReplayDeadLettersRequestSchema,
  ResumeSubscriptionRequestSchema,
  type SubscriptionService,
} from "../../gen/leasehold/v1/subscription_service_pb.ts";
import type { SubscriptionSchema } from "../../gen/leasehold/v1/subscription_pb.ts";
import { invalid, LeaseholdError } from "../../base/errors.ts";
import { parseScope } from "../../model/path.ts";
import type { Principal } from "../../model/principal.ts";
import type { DeadLetterRecord, SubscriptionRecord } from "../../model/subscription.ts";
import { readHead } from "../../store/changes.ts";
import { deadLetterPage } from "../../store/dead-letters.ts";
import type { Db } from "../../store/db.ts";
import { findSubscription, subscriptionPage } from "../../store/subscriptions.ts";
import type { Subscriptions } from "../../subscriptions/subscriptions.ts";
import type { Write } from "../../subscriptions/write.ts";
import { parseResumeToken } from "../../watch/resume-token.ts";
import type { Authorized } from "../call.ts";
import type { Access, Freshness } from "../collaborators.ts";
import type { Handlers } from "../definition.ts";
import type { PageTokens } from "../page-token.ts";
import type { RequestKeys } from "../request-key.ts";
import { deliveryMessage } from "./delivery-message.ts";
import { withoutSecrets } from "./sink-messages.ts";
import { deadLetterMessage, subscriptionInput, subscriptionMessage } from "./subscription-messages.ts";

export interface SubscriptionServiceDeps {
  readonly db: Db;
  readonly subscriptions: Pick<Subscriptions, "writer" | "consumers">;
  readonly access: Access;
  readonly freshness: Freshness;
  readonly pages: PageTokens;
  readonly requests: RequestKeys;
  readonly parsePrincipal: (id: string) => Principal | undefined;
}

const FIRST_PAGE = 100;
const CHUNK = 500;
const MAX_SCANNED = 10_000;
const UNACKNOWLEDGED = 10;
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** By the number of ResumeSubscriptionRequest.From. */
const FROM = ["", "OLDEST", "NOW", "SNAPSHOT"] as const;

export function subscriptionService(deps: SubscriptionServiceDeps): Handlers<typeof SubscriptionService> {
  const { db, requests, pages } = deps;
  const { writer, consumers } = deps.subscriptions;
  const nameOf = (path: string): string => path.slice("subscriptions/".length);
  const find = async (path: string): Promise<SubscriptionRecord> => {
    const found = await findSubscription(db, nameOf(path));
    if (found === undefined) throw new LeaseholdError("SUBSCRIPTION_NOT_FOUND");
    return found;
  };
  const shown = async (path: string): Promise<MessageInitShape<typeof SubscriptionSchema>> =>
    subscriptionMessage(await find(path), (await readHead(db)).revision);
  const answer = async (call: Authorized, written: { readonly revision: number; readonly recorded: boolean }) => {
    call.recorded = written.recorded;
    return { subscription: await shown(call.path), revision: BigInt(written.revision) };
  };
  const writeOf = (call: Authorized, request: Write["request"]): Write => ({ actor: call.actor(), request });

  return {
    async putSubscription(request, call) {
      const input = subscriptionInput(request.subscription!);
      const owner = authorizePut(deps, call, input.document.paths, request.subscription!.owner);
      const begin = request.resumeToken === "" ? undefined : parseResumeToken(request.resumeToken, await readHead(db));
      const write = writeOf(call, requests.of(PutSubscriptionRequestSchema, request));
      const written = await writer.put({ ...input, owner, begin }, write, request.etag, request.dryRun);
      if (!request.dryRun) return answer(call, written);
      return { subscription: { ...withoutSecrets(request.subscription!), owner }, revision: 0n };
    },

    async getSubscription(_request, call) {
      return { subscription: await shown(call.path) };
    },

    async listSubscriptions(request, call) {
      const size = request.pageSize || FIRST_PAGE;
      const head = (await readHead(db)).revision;
      const found: SubscriptionRecord[] = [];
      let after = pages.open("ListSubscriptions", {}, call.principal, request.pageToken) ?? "";
      let more = true;
      for (let scanned = 0; more && found.length < size && scanned < MAX_SCANNED;) {
        const rows = await subscriptionPage(db, after, CHUNK);
        more = rows.length === CHUNK;
        for (const [i, row] of rows.entries()) {
          scanned++;
          after = row.name;
          if (call.allows(`subscriptions/${row.name}`)) found.push(row);
          if (found.length < size) continue;
          more ||= i + 1 < rows.length;
          break;
        }
      }
      const nextPageToken = more ? pages.seal("ListSubscriptions", {}, call.principal, after) : "";
      return { subscriptions: found.map((record) => subscriptionMessage(record, head)), nextPageToken };
    },

    async deleteSubscription(request, call) {
      const written = await writer.delete(nameOf(call.path), request.etag, writeOf(call, requests.of(DeleteSubscriptionRequestSchema, request)));
      call.recorded = written.recorded;
      return { revision: BigInt(written.revision) };
    },

    async pauseSubscription(request, call) {
      return answer(call, await writer.pause(nameOf(call.path), writeOf(call, requests.of(PauseSubscriptionRequestSchema, request))));
    },

    async resumeSubscription(request, call) {
      const write = writeOf(call, requests.of(ResumeSubscriptionRequestSchema, request));
      return answer(call, await writer.resume(nameOf(call.path), FROM[request.from] ?? "", write));
    },

    async consume(request, call, out) {
      const record = await find(call.path);
      requireOwner(call, record);
      await out.write({});
      for await (const consumed of consumers.consume(record, request.maxUnacknowledged || UNACKNOWLEDGED, call.signal)) {
        call.authorizeItem(call.path);
        await out.write({ delivery: deliveryMessage(consumed), ackToken: consumed.ackToken });
      }
    },

    async acknowledge(request, call) {
      const record = await find(call.path);
      requireOwner(call, record);
      const revision = await consumers.acknowledge(record, request.ackToken, call.actor());
      call.recorded = true;
      return { revision: BigInt(revision) };
    },

    async listDeadLetters(request, call) {
      const record = await find(call.path);
      const size = request.pageSize || FIRST_PAGE;
      const filter = { path: call.path, uid: record.uid };
      const after = Number(pages.open("ListDeadLetters", filter, call.principal, request.pageToken) ?? 0);
      const page = await deadLetterPage(db, record.uid, after, size);
      const visible = page.filter(({ content }) => content.change === undefined || call.allows(content.change.path, "watch"));
      const nextPageToken = page.length < size ? "" : pages.seal("ListDeadLetters", filter, call.principal, String(page.at(-1)!.place));
      return { deadLetters: visible.map((letter: DeadLetterRecord) => deadLetterMessage(record, letter)), nextPageToken };
    },

    async replayDeadLetters(request, call) {
      if ((await find(call.path)).document.sink.kind === "") throw new LeaseholdError("SUBSCRIPTION_SINK");
      const ids = request.ids.length === 0 ? undefined : uuids(request.ids);
      const written = await writer.replay(nameOf(call.path), ids, writeOf(call, requests.of(ReplayDeadLettersRequestSchema, request)));
      call.recorded = written.recorded;
      return { count: BigInt(Number(written.result["count"])) };
    },

    async discardDeadLetters(request, call) {
      if (request.all === request.ids.length > 0) throw invalid("ids", "must be given, or else all");
      const ids = request.all ? undefined : uuids(request.ids);
      const written = await writer.discard(nameOf(call.path), ids, writeOf(call, requests.of(DiscardDeadLettersRequestSchema, request)));
      call.recorded = written.recorded;
      return { count: BigInt(Number(written.result["count"])) };
    },
  };
}

/**
 * Who writes a subscription must be able to watch what it names, and it then works in his name. In somebody else's only with the capability operate and with all of its paths: else a subscription would be a way to see with
 * another's eyes. Answers the owner.
 */
function authorizePut({ access, parsePrincipal }: SubscriptionServiceDeps, call: Authorized, paths: readonly string[], named: string): string {
  const scopes = paths.map(parseScope);
  for (const scope of scopes) call.authorizeScope(scope, "watch");
  if (named === "" || named === call.principal.id) return call.principal.id;
  if (parsePrincipal(named) === undefined) throw invalid("subscription.owner", "must be a SPIFFE id");
  call.authorizeItem(call.path, "operate");
  for (const scope of scopes) {
    if (scope.exact || access.allowsFolder(call.principal, "watch", scope.prefix)) continue;
    throw new LeaseholdError("PERMISSION_DENIED", "not the whole folder", { metadata: { capability: "watch", path: scope.prefix } });
  }
  return named;
}

/** What it delivers was authorized for its owner: nobody else may have it. The same words as where no policy allows it. */
function requireOwner(call: Authorized, record: SubscriptionRecord): void {
  if (record.owner !== call.principal.id)
    throw new LeaseholdError("PERMISSION_DENIED", "not the owner", { metadata: { capability: call.capability, path: call.path } });
}

function uuids(ids: readonly string[]): string[] {
  const lower = ids.map((id) => id.toLowerCase());
  if (!lower.every((id) => UUID.test(id))) throw invalid("ids", "must be UUIDs");
  return lower;
}
