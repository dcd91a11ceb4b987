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
import { Client as Channel, credentials, type ServiceError, status } from "@grpc/grpc-js";
import { CallError } from "./errors.ts";

/** Where a broker is, and who calls. PEM texts. */
export interface Endpoint {
  /** `host:port` or `unix:/path`. */
  readonly address: string;
  readonly certificate: string;
  readonly key: string;
  /** CA that vouches for the broker. */
  readonly ca: string;
  /** Name the broker's certificate must carry, where it is not the address's. */
  readonly serverName?: string | undefined;
}

const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
const RETRY_MS = 200;
const MAX_RETRY_MS = 5000;

/** A connection to a broker: typed calls over the generated services. Close it when done. */
export class Client {
  readonly #channel: Channel;
  readonly #timeoutMs: number;

  /** @param timeoutMs for a unary call, its retries included. */
  constructor(endpoint: Endpoint, timeoutMs = 30_000) {
    const { certificate, key, ca, serverName } = endpoint;
    this.#timeoutMs = timeoutMs;
    this.#channel = new Channel(endpoint.address, credentials.createSsl(Buffer.from(ca), Buffer.from(key), Buffer.from(certificate)), {
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
      ...(serverName === undefined ? {} : { "grpc.ssl_target_name_override": serverName, "grpc.default_authority": serverName }),
    });
  }

  /**
   * One unary call. UNAVAILABLE is tried again, at the broker's own pace, until the timeout: give every mutation a `request_id`, and a repeated one is done once. Throws CallError.
   */
  async call<I extends DescMessage, O extends DescMessage>(method: DescMethodUnary<I, O>, request: MessageInitShape<I>): Promise<MessageShape<O>> {
    const deadline = Date.now() + this.#timeoutMs;
    for (let wait = RETRY_MS; ; wait = Math.min(wait * 2, MAX_RETRY_MS)) {
      try {
        return await this.#once(method, request, deadline);
      } catch (error) {
        if (!(error instanceof CallError) || error.code !== status.UNAVAILABLE || error.reason === "") throw error;
        const ms = error.retryMs ?? wait;
        if (Date.now() + ms >= deadline) throw error;
        await new Promise((resolve) => setTimeout(resolve, ms));
      }
    }
  }

  /** One server stream, message by message. Ends when the broker ends it or `signal` aborts; throws CallError. */
  async *stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    signal?: AbortSignal,
  ): AsyncGenerator<MessageShape<O>> {
    const stream = this.#channel.makeServerStreamRequest(pathOf(method), encoder(method.input), decoder(method.output), request);
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

  #once<I extends DescMessage, O extends DescMessage>(method: DescMethodUnary<I, O>, request: MessageInitShape<I>, deadline: number): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      this.#channel.makeUnaryRequest(pathOf(method), encoder(method.input), decoder(method.output), request, { deadline }, (error, response) => {
        if (error === null && response !== undefined) resolve(response);
        else reject(callError(error));
      });
    });
  }
}

function pathOf(method: { readonly name: string; readonly parent: { readonly typeName: string } }): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function encoder<D extends DescMessage>(schema: D): (message: MessageInitShape<D>) => Buffer {
  return (message) => Buffer.from(toBinary(schema, create(schema, message)));
}

function decoder<D extends DescMessage>(schema: D): (bytes: Buffer) => MessageShape<D> {
  return (bytes) => fromBinary(schema, bytes);
}

function callError(error: unknown): unknown {
  return typeof (error as ServiceError | null)?.code === "number" ? new CallError(error as ServiceError) : error;
}
