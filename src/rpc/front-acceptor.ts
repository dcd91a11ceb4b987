import { createServer, type Server, type Socket } from "node:net";
import tls, { type TLSSocket } from "node:tls";
import { hasLostPeer } from "../base/peer.ts";
import type { FrontLimits } from "./front-limits.ts";
import { listenOn } from "./front-listen.ts";
import type { Material } from "./front-material.ts";
import { type FrontRefusal, handshakeRefusal, type Refusals } from "./front-refusals.ts";

export interface AcceptorOptions {
  readonly limits: FrontLimits;
  readonly refusals: Refusals;
  /** A handshake is done: TLS 1.3, but anything else about the peer is still open, and it may offer no HTTP/2. */
  readonly onSecure: (socket: TLSSocket) => void;
}

/** Every open socket is asked once in so many ticks whether its peer is still there: 10,000 of them cost 4 ms of each second's. */
const LOOK_TICKS = 5;
const LOOK_MS = 1000;

/**
 * Listens, counts and does handshakes. The TCP server is apart from the TLS server, so that limits hold before a handshake costs anything.
 * `rejectUnauthorized` is false: Node would drop the socket without an alert and without telling us why; `identifyPeer` refuses instead, and says so.
 */
export class Acceptor {
  readonly #options: AcceptorOptions;
  readonly #tcp: Server;
  readonly #tls: tls.Server;
  /** Every open socket, before and after its handshake. */
  readonly #sockets = new Set<Socket>();
  readonly #secure = new Set<TLSSocket>();
  readonly #perAddress = new Map<string, number>();
  #material: Material;
  #looks = 0;
  readonly #looking: NodeJS.Timeout;
  #stopped = false;
  #onIdle: (() => void) | undefined;
  #onEmpty: (() => void) | undefined;

  constructor(material: Material, options: AcceptorOptions) {
    this.#material = material;
    this.#options = options;
    this.#tls = tls.createServer({
      ...material.options,
      requestCert: true,
      rejectUnauthorized: false,
      ALPNProtocols: ["h2"],
      handshakeTimeout: options.limits.handshakeMs,
      ...(material.contexts.size > 1 && { SNICallback: this.#choose }),
    });
    this.#tls.on("secureConnection", (socket) => this.#onSecure(socket));
    this.#tls.on("tlsClientError", (error: NodeJS.ErrnoException, socket) => {
      options.refusals.count(handshakeRefusal(error), { peer: "", code: error.code });
      // After its handshake timeout Node leaves the socket open (tried).
      socket.destroy();
    });
    this.#tcp = createServer({ noDelay: true }, (socket) => this.#accept(socket));
    this.#looking = setInterval(() => this.#look(), LOOK_MS).unref();
  }

  /** Open sockets. */
  get size(): number {
    return this.#sockets.size;
  }

  /** Answers the address, with the port that was chosen. Throws as `listenOn` does. */
  async listen(address: string): Promise<string> {
    const bound = await listenOn(this.#tcp, address);
    // After the start (EMFILE on accept and the like): the next connection may do.
    this.#tcp.on("error", () => {});
    return bound;
  }

  /** For handshakes from now on. */
  use(material: Material): void {
    this.#material = material;
    this.#tls.setSecureContext(material.options);
  }

  /** Listens no more; connections whose handshake ends later are dropped. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#tcp.close();
  }

  /** Resolves when no connection is open whose handshake is done. */
  async idle(): Promise<void> {
    if (this.#secure.size > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
  }

  /** Resolves when every socket is closed. */
  async destroyAll(): Promise<void> {
    clearInterval(this.#looking);
    for (const socket of this.#secure) socket.destroy();
    for (const socket of this.#sockets) socket.destroy();
    if (this.#sockets.size > 0) await new Promise<void>((resolve) => (this.#onEmpty = resolve));
  }

  readonly #choose = (name: string, done: (error: Error | null, context?: tls.SecureContext) => void): void => {
    done(null, this.#material.contexts.get(domainFor(this.#material, name)));
  };

  #accept(socket: Socket): void {
    socket.on("error", () => {});
    const { refusals } = this.#options;
    const address = socket.remoteAddress ?? "";
    const ofAddress = (this.#perAddress.get(address) ?? 0) + 1;
    const refusal = this.#overLimit(address === "" ? 0 : ofAddress);
    if (refusal !== undefined) {
      refusals.count(refusal, { peer: addressOf(socket) });
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    this.#perAddress.set(address, ofAddress);
    socket.once("close", () => this.#closed(socket, address));
    this.#tls.emit("connection", socket);
  }

  /** Destroys a part of the sockets whose peer is gone without Node having noticed. */
  #look(): void {
    let i = this.#looks++ % LOOK_TICKS;
    for (const socket of this.#sockets) if (i++ % LOOK_TICKS === 0 && hasLostPeer(socket)) socket.destroy();
  }

  #overLimit(ofAddress: number): FrontRefusal | undefined {
    const { maxConnections, maxConnectionsPerAddress, maxHandshakes } = this.#options.limits;
    if (this.#sockets.size >= maxConnections) return "TOO_MANY_CONNECTIONS";
    if (ofAddress > maxConnectionsPerAddress) return "TOO_MANY_FROM_ADDRESS";
    return this.#sockets.size - this.#secure.size >= maxHandshakes ? "TOO_MANY_HANDSHAKES" : undefined;
  }

  #closed(socket: Socket, address: string): void {
    this.#sockets.delete(socket);
    const left = this.#perAddress.get(address)! - 1;
    if (left === 0) this.#perAddress.delete(address);
    else this.#perAddress.set(address, left);
    if (this.#sockets.size === 0) this.#onEmpty?.();
  }

  #onSecure(socket: TLSSocket): void {
    // http2 takes its own listener away before the socket is gone.
    socket.on("error", () => {});
    if (this.#stopped) {
      socket.destroy();
      return;
    }
    this.#secure.add(socket);
    socket.once("close", () => {
      this.#secure.delete(socket);
      if (this.#secure.size === 0) this.#onIdle?.();
    });
    this.#options.onSecure(socket);
  }
}

/** The trust domain whose context a connection gets: the longest that the server name is, or begins with (`beta.test.leasehold.acme.test`); else the default. */
export function domainFor({ domains, defaultDomain }: Pick<Material, "domains" | "defaultDomain">, serverName: string | false | null | undefined): string {
  let best: string | undefined;
  const asked = `${serverName || ""}.`.toLowerCase();
  for (const name of domains.keys()) if (asked.startsWith(`${name}.`) && name.length > (best?.length ?? 0)) best = name;
  return best ?? defaultDomain.name;
}

/** `ip:port`, or `unix`. */
export function addressOf(socket: Socket): string {
  return socket.remotePort === undefined ? "unix" : `${socket.remoteAddress?.replace(/^::ffff:/, "") ?? ""}:${socket.remotePort}`;
}
