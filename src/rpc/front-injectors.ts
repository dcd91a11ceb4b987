import { type ConnectionInjector, type Server, ServerCredentials } from "@grpc/grpc-js";
import type { Socket } from "node:net";
import type { Clock } from "../base/clock.ts";

/** grpc-js's injectors by generation: the newest takes connections, older ones are drained. */
export class Injectors {
  readonly #grpc: Server;
  readonly #clock: Clock;
  #current: ConnectionInjector;

  constructor(grpc: Server, clock: Clock) {
    this.#grpc = grpc;
    this.#clock = clock;
    this.#current = this.#make();
  }

  /** The socket has finished its TLS handshake: HTTP/2 starts on it. */
  inject(socket: Socket): void {
    this.#current.injectConnection(socket);
  }

  /** Connections so far get a GOAWAY; what is under way on them may go on for `graceMs`. */
  renew(graceMs: number): void {
    const old = this.#current;
    this.#current = this.#make();
    old.drain(graceMs);
    // Only forgets: the sessions are gone by then.
    this.#clock.after(graceMs + 1000, () => old.destroy());
  }

  /** Like `renew`, with no successor. grpc-js's own shutdowns are wrong here: on injected connections `tryShutdown` returns before calls end, `forceShutdown` closes nothing. */
  drain(graceMs: number): void {
    this.#current.drain(graceMs);
  }

  #make(): ConnectionInjector {
    return this.#grpc.createConnectionInjector(ServerCredentials.createInsecure());
  }
}
