import { constants, type ServerHttp2Stream } from "node:http2";
import { Metadata, type ServerWritableStream } from "@grpc/grpc-js";
import { LeaseholdError } from "../base/errors.ts";

/**
 * The HTTP/2 stream below a grpc-js server stream, which grpc-js shows nobody: its version is pinned, and tests see to it that this still finds the stream.
 * Without it a stream whose client does not read could not be freed before the client reads again or its connection ends, and each message would go through a second stream's queue.
 */
function http2Of(raw: ServerWritableStream<Buffer, Buffer>): ServerHttp2Stream | undefined {
  return (raw as unknown as { readonly call?: { readonly stream?: ServerHttp2Stream } }).call?.stream;
}

/**
 * Sends the headers and answers where frames are written from then on: nothing may be written to `raw` itself any more, its end (and an error) go through it as ever. grpc-js's own queue before this one made up a quarter of what a
 * message took that goes to a thousand watches (docs/benchmarks.md, watch_fanout), and it counts messages where this one counts bytes.
 */
export function openFrames(raw: ServerWritableStream<Buffer, Buffer>): ServerHttp2Stream {
  const stream = http2Of(raw);
  if (stream === undefined) throw new LeaseholdError("INTERNAL", "no HTTP/2 stream below the call");
  raw.sendMetadata(new Metadata());
  return stream;
}

/** Bytes that the client has not taken. */
export function untaken(raw: ServerWritableStream<Buffer, Buffer>): number {
  return http2Of(raw)?.writableLength ?? 0;
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
