import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import type { Metadata, ServiceError, status } from "@grpc/grpc-js";
import { BadRequestSchema, ErrorInfoSchema, RequestInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../gen/google/rpc/status_pb.ts";

/** What a call ended with, in words and for programs. */
export class CallError extends Error {
  override readonly name = "CallError";
  readonly code: status;
  /** Of the google.rpc.ErrorInfo; empty when the error is not the broker's own (connection refused and the like). */
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly { readonly field: string; readonly description: string }[];
  /** How long the broker asks to wait before the next try, in milliseconds. */
  readonly retryMs: number | undefined;
  /** To quote in a report. */
  readonly requestId: string;

  constructor(error: ServiceError) {
    super(error.details, { cause: error });
    this.code = error.code;
    const details = detailsOf(error.metadata);
    const info = details(ErrorInfoSchema);
    this.reason = info?.reason ?? "";
    this.metadata = info?.metadata ?? {};
    this.violations = details(BadRequestSchema)?.fieldViolations ?? [];
    const delay = details(RetryInfoSchema)?.retryDelay;
    this.retryMs = delay === undefined ? undefined : Number(delay.seconds) * 1000 + delay.nanos / 1e6;
    this.requestId = details(RequestInfoSchema)?.requestId ?? "";
  }
}

function detailsOf(metadata: Metadata | undefined): <D extends DescMessage>(schema: D) => MessageShape<D> | undefined {
  const [bytes] = metadata?.get("grpc-status-details-bin") ?? [];
  const found = Buffer.isBuffer(bytes) ? (decoded(StatusSchema, bytes)?.details ?? []) : [];
  return (schema) => {
    const any = found.find((detail) => detail.typeUrl.endsWith(`/${schema.typeName}`));
    return any === undefined ? undefined : decoded(schema, any.value);
  };
}

/** Details that can't be read are none: a proxy may have cut them, and throwing in a callback of grpc-js would end the process. */
function decoded<D extends DescMessage>(schema: D, bytes: Uint8Array): MessageShape<D> | undefined {
  try {
    return fromBinary(schema, bytes);
  } catch {
    return undefined;
  }
}
