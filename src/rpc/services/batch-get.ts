import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  type BatchGetSecretsRequest,
  type BatchGetSecretsResponse_ResultSchema,
  type BatchGetSecretsResponseSchema,
  type GetSecretRequest,
  GetSecretResponseSchema,
} from "../../gen/leasehold/v1/secret_service_pb.ts";
import { LeaseholdError } from "../../base/errors.ts";
import { parsePath } from "../../model/path.ts";
import type { SecretReader } from "../../secrets/read.ts";
import type { Authorized } from "../call.ts";
import type { Freshness } from "../collaborators.ts";
import { statusOf } from "../status.ts";
import { secretResponse, selectorOf } from "./secrets.ts";

type Response = MessageInitShape<typeof BatchGetSecretsResponseSchema>;
type Result = MessageInitShape<typeof BatchGetSecretsResponse_ResultSchema>;

/** Well below gRPC's usual receive limit of 4 MiB. Source: api.md, Style. */
const MAX_ANSWER_BYTES = 3 * 1024 * 1024;

/** Answers every item by itself: each is authorized, recorded, and carries the status a single GetSecret would have had. */
export function batchGetSecrets(reader: SecretReader, freshness: Freshness, request: BatchGetSecretsRequest, call: Authorized): Response | Promise<Response> {
  const wanted = request.requests.reduce((most, item) => (item.minRevision > most ? item.minRevision : most), 0n);
  if (Number(wanted) > freshness.applied) return freshness.catchUp(Number(wanted)).then(() => answerAll(reader, request, call));
  return answerAll(reader, request, call);
}

async function answerAll(reader: SecretReader, request: BatchGetSecretsRequest, call: Authorized): Promise<Response> {
  let bytes = 0;
  const results: Result[] = [];
  for (const item of request.requests) {
    results.push(await answerItem(item));
  }
  return { results };

  async function answerItem(item: GetSecretRequest): Promise<Result> {
    let path = "";
    try {
      path = parsePath(item.path, "secrets");
      call.authorizeItem(path);
      const found = reader.get(path, selectorOf(item));
      const read = found instanceof Promise ? await found : found;
      const secret = create(GetSecretResponseSchema, secretResponse(read));
      bytes += toBinary(GetSecretResponseSchema, secret).length;
      if (bytes > MAX_ANSWER_BYTES) throw new LeaseholdError("RESPONSE_TOO_LARGE");
      call.recordItem({ path, outcome: "ok", version: read.version.version });
      return { result: { case: "secret", value: secret } };
    } catch (error) {
      const outcome = error instanceof LeaseholdError ? error.reason : "INTERNAL";
      call.recordItem({ path, outcome });
      return { result: { case: "error", value: statusOf(error, call.requestId) } };
    }
  }
}
