import type { Socket } from "node:net";
import type { ChannelCredentials } from "@grpc/grpc-js";
import { hasLostPeer } from "../base/peer.ts";

const LOOK_MS = 1000;

/**
 * The same credentials; connections made with them are destroyed within a second when their peer is gone and Node does not say so: calls on them fail then, and the channel connects anew.
 * Not before the handshake is done: Node notices by itself until then, and grpc-js would wait for ever for a handshake whose socket is merely closed.
 */
export function noticingLoss(credentials: ChannelCredentials): ChannelCredentials {
  const create = credentials._createSecureConnector.bind(credentials);
  credentials._createSecureConnector = (...args) => {
    const connector = create(...args);
    const secure = connector.connect.bind(connector);
    connector.connect = async (socket) => {
      const secured = await secure(socket);
      look(socket);
      return secured;
    };
    return connector;
  };
  return credentials;
}

function look(socket: Socket): void {
  if (socket.destroyed) return;
  const timer = setInterval(() => {
    if (hasLostPeer(socket)) socket.destroy();
  }, LOOK_MS);
  timer.unref();
  socket.once("close", () => clearInterval(timer));
}
