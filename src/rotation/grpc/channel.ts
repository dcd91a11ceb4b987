import { createSecureContext } from "node:tls";
import { create, type DescMessage, type DescMethodUnary, fromBinary, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { Client, credentials, type ServiceError, status } from "@grpc/grpc-js";
import type { Sensitive } from "../../base/sensitive.ts";
import { serverSpiffeId } from "../../identity/server-peer.ts";
import { refused, unreachable } from "../outside.ts";

/** A version has at most 64 KiB; a step carries a few. */
const MAX_MESSAGE_BYTES = 1024 * 1024;

export interface Calling {
  readonly address: string;
  readonly caPem: string;
  readonly spiffeId: string;
  readonly certificate: Sensitive;
  readonly key: Sensitive;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** The service has no such method. */
export class NotImplemented extends Error {}

/**
 * One call on a connection of its own: steps are rare, and so a new certificate of either side is used at once. The service is known by its SPIFFE id before a byte of the request is sent. Never tried twice here: that is the rotation's to
 * do, which asks first whether the candidate works. Throws NotImplemented, TARGET_MISCONFIGURED for a no, else TARGET_UNAVAILABLE; the service's own text goes nowhere.
 */
export async function call<I extends DescMessage, O extends DescMessage>(
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
  calling: Calling,
): Promise<MessageShape<O>> {
  let stranger = false;
  const channel = new Client(
    calling.address,
    credentials.createFromSecureContext(contextOf(calling), {
      checkServerIdentity: (_host, { raw }) => {
        stranger = serverSpiffeId(raw) !== calling.spiffeId;
        return stranger ? new Error("another SPIFFE id") : undefined;
      },
    }),
    {
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
      "grpc.enable_retries": 0,
      "grpc.enable_http_proxy": 0,
      "grpc.enable_channelz": 0,
      "grpc.service_config_disable_resolution": 1,
      // TLS has no name for an address; which name is asked for does not matter, for the SPIFFE id decides.
      ...(/^[[0-9]/.test(calling.address) ? { "grpc.ssl_target_name_override": "rotator" } : {}),
    },
  );
  try {
    return await once(channel, method, request, calling);
  } catch (error) {
    if (error instanceof DOMException) throw unreachable("unreachable", error.name);
    throw stranger ? unreachable("identity_refused") : faultOf(error);
  } finally {
    channel.close();
  }
}

function contextOf({ caPem, certificate, key }: Calling): ReturnType<typeof createSecureContext> {
  try {
    return createSecureContext({
      ca: caPem,
      cert: certificate.revealText(),
      key: key.revealText(),
      minVersion: "TLSv1.3",
      allowPartialTrustChain: true, // as bundles of trust domains are used everywhere here
    });
  } catch {
    // The cause may quote what it could not read.
    throw refused("client_certificate");
  }
}

function once<I extends DescMessage, O extends DescMessage>(
  channel: Client,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
  { timeoutMs, signal }: Calling,
): Promise<MessageShape<O>> {
  return new Promise((resolve, reject) => {
    const pending = channel.makeUnaryRequest(
      `/${method.parent.typeName}/${method.name}`,
      (message: MessageInitShape<I>) => Buffer.from(toBinary(method.input, create(method.input, message))),
      (bytes: Buffer) => fromBinary(method.output, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)),
      request,
      { deadline: Date.now() + timeoutMs },
      (error, response) => {
        signal.removeEventListener("abort", cancel);
        if (error === null && response !== undefined) resolve(response);
        else reject(error ?? new Error("no response"));
      },
    );
    const cancel = (): void => pending.cancel();
    if (signal.aborted) cancel();
    else signal.addEventListener("abort", cancel, { once: true });
  });
}

function faultOf(error: unknown): Error {
  switch ((error as Partial<ServiceError>).code) {
    case status.UNIMPLEMENTED:
      return new NotImplemented();
    case status.FAILED_PRECONDITION:
    case status.INVALID_ARGUMENT:
      return refused("refused");
    case status.ABORTED:
      return refused("generation_passed");
    case status.PERMISSION_DENIED:
    case status.UNAUTHENTICATED:
      // Nothing is wrong with the candidate: somebody has to let the broker in.
      return unreachable("not_allowed");
    case status.DEADLINE_EXCEEDED:
      return unreachable("deadline_passed");
    default:
      return unreachable("unreachable", `gRPC ${String((error as Partial<ServiceError>).code ?? "unknown")}`);
  }
}
