import type { sendUnaryData, ServerUnaryCall, ServerWritableStream, UntypedServiceImplementation } from "@grpc/grpc-js";
import {
  type HealthCheckRequest,
  HealthCheckRequestSchema,
  HealthCheckResponse_ServingStatus as Serving,
  HealthCheckResponseSchema,
} from "../gen/grpc/health/v1/health_pb.ts";
import { LeaseholdError } from "../base/errors.ts";
import { decode, encode } from "./definition.ts";
import { grpcError } from "./status.ts";

type Stream = ServerWritableStream<Buffer, Buffer>;

const MAX_WATCHES = 1000;

/**
 * grpc.health.v1: the status of the whole server (`""`) and of each service, set from outside. Neither authorized nor audited: who has a
 * connection may ask. (An unknown service gets NOT_FOUND without details: that is the protocol's word, not one of our reasons.)
 */
export class Health {
  readonly #statuses = new Map<string, Serving>();
  readonly #watches = new Map<Stream, string>();

  constructor(services: readonly string[]) {
    for (const name of ["", ...services]) this.#statuses.set(name, Serving.NOT_SERVING);
  }

  /** Sets every known service at once, or one of them; tells the watchers of what has changed. */
  set(serving: boolean, service?: string): void {
    const status = serving ? Serving.SERVING : Serving.NOT_SERVING;
    for (const [name, old] of this.#statuses) {
      if ((service !== undefined && name !== service) || old === status) continue;
      this.#statuses.set(name, status);
      for (const [stream, watched] of this.#watches) if (watched === name) send(stream, status);
    }
  }

  /** Ends every watch; for the drain. */
  endWatches(): void {
    for (const stream of this.#watches.keys()) stream.emit("error", grpcError(new LeaseholdError("DRAINING"), ""));
    this.#watches.clear();
  }

  handlers(): UntypedServiceImplementation {
    return { check: this.#check, watch: this.#watch };
  }

  readonly #check = (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>): void => {
    const request = read(call.request);
    const status = request && this.#statuses.get(request.service);
    if (request === undefined) callback(grpcError(new LeaseholdError("REQUEST_INVALID"), ""));
    else if (status === undefined) callback({ code: 5, details: "unknown service" });
    else callback(null, encode(HealthCheckResponseSchema, { status }));
  };

  readonly #watch = (stream: Stream): void => {
    const request = read(stream.request);
    if (request === undefined) return void stream.emit("error", grpcError(new LeaseholdError("REQUEST_INVALID"), ""));
    if (this.#watches.size >= MAX_WATCHES) return void stream.emit("error", grpcError(new LeaseholdError("OVERLOADED"), ""));
    this.#watches.set(stream, request.service);
    stream.once("cancelled", () => this.#watches.delete(stream));
    stream.once("close", () => this.#watches.delete(stream));
    send(stream, this.#statuses.get(request.service) ?? Serving.SERVICE_UNKNOWN);
  };
}

/** A watcher that does not read misses intermediate states, never the memory of this process. */
function send(stream: Stream, status: Serving): void {
  if (!stream.writableNeedDrain) stream.write(encode(HealthCheckResponseSchema, { status }));
}

function read(bytes: Buffer): HealthCheckRequest | undefined {
  try {
    return decode(HealthCheckRequestSchema, bytes);
  } catch {
    return undefined;
  }
}
