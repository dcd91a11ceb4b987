import type { Socket } from "node:net";

interface Handle {
  /** libuv's: 0, or a negative error. A pipe (a unix socket) has none. */
  readonly getpeername?: (out: object) => number;
}

/**
 * True when the kernel has lost the peer of a TCP socket (reset, or timed out) that Node still takes for connected; 2 µs. It never is for a unix socket.
 *
 * Node can miss that end for ever: a TLS write that fails at once leaves its wrapper waiting for the write to complete (`TLSWrap::EncOut` keeps `write_size_`), so the next write never
 * ends either, and HTTP/2 does not read while it writes. Whoever cancels two streams on a connection that was just reset gets there (test/fault/lost-peer.test.ts); only an HTTP/2
 * keepalive, after 40 s, got out of it. Pings each few seconds would cost 10,000 idle watches more than their bookmarks do, hence this; `remoteAddress` is no way: Node remembers it.
 */
export function hasLostPeer(socket: Socket): boolean {
  const handle = (socket as unknown as { readonly _handle?: Handle | null })._handle;
  return !socket.connecting && handle?.getpeername !== undefined && handle.getpeername({}) !== 0;
}
