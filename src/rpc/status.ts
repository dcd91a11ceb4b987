import { create, type DescMessage, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { type Any, anyPack, durationFromMs } from "@bufbuild/protobuf/wkt";
import { Metadata, status, type StatusObject } from "@grpc/grpc-js";
import { LeaseholdError, type Reason } from "../base/errors.ts";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  QuotaFailureSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "../gen/google/rpc/error_details_pb.ts";
import { type Status, StatusSchema } from "../gen/google/rpc/status_pb.ts";
import { toBuffer } from "./definition.ts";
import { REASONS } from "./reasons.ts";

/** Beyond 8 KiB of headers clients drop the call with no reason at all. */
const MAX_BYTES = 7 * 1024;
const MAX_VIOLATIONS = 20;
const MAX_VALUE_CHARS = 512;
const DOMAIN = "leasehold";

/** The public reason of anything thrown: what is not ours is INTERNAL, and its text is for our log alone. */
export function reasonOf(error: unknown): Reason {
  return error instanceof LeaseholdError ? error.reason : "INTERNAL";
}

/** The error as google.rpc.Status: for one item of a batch, or for a whole call. */
export function statusOf(error: unknown, requestId: string): Status {
  const known = error instanceof LeaseholdError ? error : new LeaseholdError("INTERNAL");
  const { code, text } = REASONS[known.reason];
  const message = create(StatusSchema, { code, message: text, details: detailsOf(known, requestId, MAX_VIOLATIONS) });
  if (toBinary(StatusSchema, message).byteLength < MAX_BYTES) return message;
  return create(StatusSchema, { code, message: text, details: [pack(ErrorInfoSchema, { reason: known.reason, domain: DOMAIN })] });
}

/** The error as grpc-js sends it. The text is constant; everything variable is in `grpc-status-details-bin`. */
export function grpcError(error: unknown, requestId: string): StatusObject {
  const message = statusOf(error, requestId);
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", toBuffer(toBinary(StatusSchema, message)));
  return { code: message.code, details: message.message, metadata };
}

function detailsOf(error: LeaseholdError, requestId: string, maxViolations: number): Any[] {
  const { code, text, retryAfterMs } = REASONS[error.reason];
  const details = [pack(ErrorInfoSchema, { reason: error.reason, domain: DOMAIN, metadata: metadataOf(error, requestId) })];
  const wait = error.retryAfterMs ?? retryAfterMs;
  if (wait !== undefined) details.push(pack(RetryInfoSchema, { retryDelay: durationFromMs(Math.ceil(wait)) }));
  if (error.violations.length > 0) {
    const fieldViolations = error.violations.slice(0, maxViolations).map((v) => ({ field: cut(v.field), description: cut(v.description) }));
    details.push(pack(BadRequestSchema, { fieldViolations }));
  }
  if (code === status.FAILED_PRECONDITION) {
    const subject = cut(error.metadata["path"] ?? "");
    details.push(pack(PreconditionFailureSchema, { violations: [{ type: error.reason, subject, description: text }] }));
  }
  if (error.reason === "RATE_LIMITED") details.push(pack(QuotaFailureSchema, { violations: [{ subject: "principal", description: text }] }));
  if (error.reason === "LEASE_QUOTA")
    details.push(pack(QuotaFailureSchema, { violations: [{ subject: cut(error.metadata["quota"] ?? ""), description: text }] }));
  if (requestId !== "") details.push(pack(RequestInfoSchema, { requestId }));
  return details;
}

function metadataOf(error: LeaseholdError, requestId: string): Record<string, string> {
  const metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(error.metadata)) metadata[name] = cut(value);
  if (error.reason === "INTERNAL") metadata["request_id"] = requestId;
  return metadata;
}

function cut(value: string): string {
  return value.slice(0, MAX_VALUE_CHARS).toWellFormed();
}

function pack<M extends DescMessage>(schema: M, init: MessageInitShape<M>): Any {
  const message: MessageShape<M> = create(schema, init);
  return anyPack(schema, message);
}
