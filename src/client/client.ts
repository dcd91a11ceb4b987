import { createSecureContext } from "node:tls";
import {
  create,
  type DescMessage,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Client as Channel, connectivityState, credentials, type ServiceError, status } from "@grpc/grpc-js";
import { type Endpoint, Material, type Pems } from "./endpoint.ts";
import { CallError } from "./errors.ts";
import { noticingLoss } from "./lost-connections.ts";

const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
/** A peer that is gone without a word (a pulled cable, a lost NAT entry) ends a watch after these, not never. */
const KEEPALIVE_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
/** How long a call whose connection broke is tried again: the length of a restart. */
const BROKEN_MS = 10_000;
const RETRY_MS = 200;
const MAX_RETRY_MS = 5000;
/** Between tries to connect; gRPC's own go up to two minutes, which is long after a restart. */
const RECONNECT_MS = 200;
const MAX_RECONNECT_MS = 5000;

/** A connection to a broker: typed calls over the generated services. A certificate that was renewed in its file is used from the next call on; what is under way goes on. Close it when done. */
export class Client {
  readonly #endpoint: Endpoint;
  readonly #material: Material;
  readonly #timeoutMs: number;
  #channel: Channel;
  #generation = 1;

  /** @param timeoutMs for a unary call, its retries included. Throws what the file system or OpenSSL says of a certificate, key or CA that can't be used. */
  constructor(endpoint: Endpoint, timeoutMs = 30_000) {
    this.#endpoint = endpoint;
    this.#material = new Material(endpoint);
    this.#timeoutMs = timeoutMs;
    this.#channel = open(endpoint, this.#material.pems);
  }

  /** Counts the certificates that this client has used. */
  get generation(): number {
    return this.#generation;
  }

  /** Whether the certificate can change: it came from a file. */
  get reloads(): boolean {
    return this.#material.reloads;
  }

  /** Uses what is in the files now. */
  renew(): void {
    this.#newest(true);
  }

  /**
   * One unary call. The broker's own UNAVAILABLE is tried again, at its pace, until the timeout; so is, for a while, a call whose connection broke, because it may or may not have been
   * done: give every mutation a `request_id`, and a repeated one is done once. A connection that never came to be fails at once. Throws CallError.
   */
  async call<I extends DescMessage, O extends DescMessage>(method: DescMethodUnary<I, O>, request: MessageInitShape<I>): Promise<MessageShape<O>> {
    const deadline = Date.now() + this.#timeoutMs;
    let brokenUntil: number | undefined;
    for (let wait = RETRY_MS; ; wait = Math.min(wait * 2, MAX_RETRY_MS)) {
      const channel = this.#newest();
      try {
        return await once(channel, method, request, deadline);
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        // The certificate ended, and its renewal is there already: nothing was done.
        if (error.code === status.UNAUTHENTICATED && this.#newest(true) !== channel) continue;
        if (error.code !== status.UNAVAILABLE) throw error;
        const ms = error.retryMs ?? wait;
        if (error.reason === "" && channel.getChannel().getConnectivityState(false) !== connectivityState.TRANSIENT_FAILURE)
          brokenUntil ??= Date.now() + BROKEN_MS;
        const until = error.reason === "" ? Math.min(brokenUntil ?? 0, deadline) : deadline;
        if (Date.now() + ms >= until) throw error;
        await new Promise((resolve) => setTimeout(resolve, ms));
      }
    }
  }

  /** One server stream, message by message. Ends when the broker ends it or `signal` aborts; throws CallError. @param timeoutMs for the whole stream; left out: it may go on for ever. */
  async *stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    signal?: AbortSignal,
    timeoutMs?: number,
  ): AsyncGenerator<MessageShape<O>> {
    if (signal?.aborted) return;
    const deadline = timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
    const stream = this.#newest().makeServerStreamRequest(pathOf(method), encoder(method.input), decoder(method.output), request, deadline);
    const cancel = (): void => stream.cancel();
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      for await (const message of stream) yield message as MessageShape<O>;
    } catch (error) {
      if (signal?.aborted) return;
      throw callError(error);
    } finally {
      signal?.removeEventListener("abort", cancel);
      stream.cancel();
    }
  }

  close(): void {
    this.#channel.close();
  }

  /** The channel of the newest certificate that can be used; half a renewal can't. */
  #newest(force = false): Channel {
    if (!this.#material.look(force)) return this.#channel;
    try {
      const next = open(this.#endpoint, this.#material.pems);
      this.#channel.close();
      this.#channel = next;
      this.#generation++;
    } catch {
      // The key of the new certificate is not there yet: its file's change is the next one.
    }
    return this.#channel;
  }
}

function open({ address, serverName }: Endpoint, { certificate, key, ca }: Pems): Channel {
  const context = createSecureContext({ ca, cert: certificate, key, minVersion: "TLSv1.3" });
  return new Channel(address, noticingLoss(credentials.createFromSecureContext(context)), {
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
    "grpc.keepalive_time_ms": KEEPALIVE_MS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
    "grpc.initial_reconnect_backoff_ms": RECONNECT_MS,
    "grpc.max_reconnect_backoff_ms": MAX_RECONNECT_MS,
    ...(serverName === undefined ? {} : { "grpc.ssl_target_name_override": serverName, "grpc.default_authority": serverName }),
  });
}

function once<I extends DescMessage, O extends DescMessage>(
  channel: Channel,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
  deadline: number,
): Promise<MessageShape<O>> {
  return new Promise((resolve, reject) => {
    channel.makeUnaryRequest(pathOf(method), encoder(method.input), decoder(method.output), request, { deadline }, (error, response) => {
      if (error === null && response !== undefined) resolve(response);
      else reject(callError(error));
    });
  });
}

function pathOf(method: { readonly name: string; readonly parent: { readonly typeName: string } }): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function encoder<D extends DescMessage>(schema: D): (message: MessageInitShape<D>) => Buffer {
  return (message) => Buffer.from(toBinary(schema, create(schema, message)));
}

function decoder<D extends DescMessage>(schema: D): (bytes: Buffer) => MessageShape<D> {
  // A plain view: `bytes` fields would be Buffers otherwise.
  return (bytes) => fromBinary(schema, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
}

function callError(error: unknown): unknown {
  return typeof (error as ServiceError | null)?.code === "number" ? new CallError(error as ServiceError) : error;
}
