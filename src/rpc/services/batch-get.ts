import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import {
  type BatchGetSecretsRequest,
  BatchGetSecretsResponse_ResultSchema as ResultSchema,
  type BatchGetSecretsResponseSchema,
} from "../../gen/leasehold/v1/secret_service_pb.ts";
import { LeaseholdError } from "../../base/errors.ts";
import { parsePath } from "../../model/path.ts";
import type { SecretReader } from "../../secrets/read.ts";
import type { Authorized } from "../call.ts";
import type { Freshness } from "../collaborators.ts";
import { toBuffer } from "../definition.ts";
import { Encoded } from "../encoded.ts";
import { statusOf } from "../status.ts";
import { encodeSecret } from "./secret-answer.ts";
import { selectorOf } from "./secrets.ts";

type Response = Encoded<typeof BatchGetSecretsResponseSchema>;

/** Well below gRPC's usual receive limit of 4 MiB. Source: api.md, Style. */
const MAX_ANSWER_BYTES = 3 * 1024 * 1024;
/** `BatchGetSecretsResponse.results` and, in it, `Result.secret`. */
const RESULTS = (1 << 3) | WireType.LengthDelimited;
const SECRET = (1 << 3) | WireType.LengthDelimited;

/** Answers every item by itself: each is authorized, recorded, and carries the status a single GetSecret would have had. */
export async function batchGetSecrets(reader: SecretReader, freshness: Freshness, request: BatchGetSecretsRequest, call: Authorized): Promise<Response> {
  const wanted = request.requests.reduce((most, item) => (item.minRevision > most ? item.minRevision : most), 0n);
  if (Number(wanted) > freshness.applied) await freshness.catchUp(Number(wanted));
  const answer = new BinaryWriter();
  let bytes = 0;
  for (const item of request.requests) {
    let path = "";
    let result: Uint8Array;
    try {
      path = parsePath(item.path, "secrets");
      call.authorizeItem(path);
      const found = reader.get(path, selectorOf(item));
      // oxlint-disable-next-line no-await-in-loop -- only what is not cached waits; in order, since the sizes add up
      const read = found instanceof Promise ? await found : found;
      const secret = encodeSecret(read).bytes;
      bytes += secret.length;
      if (bytes > MAX_ANSWER_BYTES) throw new LeaseholdError("RESPONSE_TOO_LARGE");
      call.recordItem({ path, outcome: "ok", version: read.version.version });
      result = new BinaryWriter().uint32(SECRET).bytes(secret).finish();
    } catch (error) {
      call.recordItem({ path, outcome: error instanceof LeaseholdError ? error.reason : "INTERNAL" });
      result = toBinary(ResultSchema, create(ResultSchema, { result: { case: "error", value: statusOf(error, call.requestId) } }));
    }
    answer.uint32(RESULTS).bytes(result);
  }
  return new Encoded(toBuffer(answer.finish()));
}
