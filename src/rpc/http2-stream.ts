import { constants, type ServerHttp2Stream } from "node:http2";
import type { ServerWritableStream } from "@grpc/grpc-js";

/**
 * The HTTP/2 stream below a grpc-js server stream, which grpc-js shows nobody: its version is pinned, and a test sees to it that this still finds the stream.
 * Without it a stream whose client does not read could not be freed before the client reads again or its connection ends.
 */
function http2Of(raw: ServerWritableStream<Buffer, Buffer>): ServerHttp2Stream | undefined {
  return (raw as unknown as { readonly call?: { readonly stream?: ServerHttp2Stream } }).call?.stream;
}

/** Gives up on what was not flushed and frees it. The client, should it read again, sees RESOURCE_EXHAUSTED: that is what gRPC makes of this code. */
export function resetStream(raw: ServerWritableStream<Buffer, Buffer>): void {
  http2Of(raw)?.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
}

/** True once the connection has told its client to go elsewhere (its age, a new trust bundle): what is open on it has until the end of a grace. */
export function isLeaving(raw: ServerWritableStream<Buffer, Buffer>): boolean {
  const stream = http2Of(raw);
  return stream?.session !== undefined && stream.session.closed;
}
