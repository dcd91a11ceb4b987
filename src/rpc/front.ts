import type { Server } from "@grpc/grpc-js";
import type { TLSSocket } from "node:tls";
import { setImmediate as nextTurn } from "node:timers/promises";
import { type Clock, systemClock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { presentedChain } from "../identity/path.ts";
import { identifyPeer } from "../identity/peer.ts";
import type { Connections } from "./connection.ts";
import { Acceptor, addressOf, domainFor } from "./front-acceptor.ts";
import { FrontConnection } from "./front-connection.ts";
import { Injectors } from "./front-injectors.ts";
import { DEFAULT_FRONT_LIMITS, type FrontLimits } from "./front-limits.ts";
import { type FrontFiles, loadMaterial, type Material } from "./front-material.ts";
import { Refusals } from "./front-refusals.ts";
import { Reloader, type ReloadChange, type ReloadResult } from "./front-reload.ts";

export interface FrontOptions {
  readonly files: FrontFiles;
  /** `host:port` (0: any) or `unix:/path`. */
  readonly listen: string;
  /** `handshake`: who may not come in never reaches HTTP/2. `explain` (development): every call is answered with the reason. */
  readonly refuse: "handshake" | "explain";
  readonly log: Log;
  readonly metrics: Metrics;
  readonly limits?: FrontLimits;
  readonly clock?: Clock;
  /** How often files are looked at though nothing was reported; milliseconds. */
  readonly pollMs?: number;
}

export interface FrontStatus {
  /** When the server's certificate ends, Unix milliseconds. */
  readonly certificateEnd: number;
  /** Why the newest files are not in use; undefined when they are. */
  readonly reloadFailure: string | undefined;
  readonly warnings: readonly string[];
  readonly connections: number;
}

const RECHECK_SLICE = 32;

/**
 * The TLS front: a listener of our own before grpc-js, since `call.getAuthContext()` costs as much as the rest of a call. A peer's identity is worked out once,
 * when its connection opens; calls find it by `connectionOf(call.getPeer())`, because the front puts the connection's id where grpc-js looks for an address
 * (on unix sockets it would see the same nothing for all: finding 39). New files take effect without a lost call; see `Reloader`.
 */
export class Front implements Connections {
  readonly #options: FrontOptions;
  readonly #limits: FrontLimits;
  readonly #clock: Clock;
  readonly #refusals: Refusals;
  readonly #connections = new Map<string, FrontConnection>();
  #started: { readonly acceptor: Acceptor; readonly injectors: Injectors; readonly reloader: Reloader; readonly address: string } | undefined;
  #material: Material | undefined;
  #lastId = 0;
  #draining: Promise<void> | undefined;

  constructor(options: FrontOptions) {
    this.#options = options;
    this.#limits = options.limits ?? DEFAULT_FRONT_LIMITS;
    this.#clock = options.clock ?? systemClock;
    this.#refusals = new Refusals(options.log, options.metrics, this.#clock);
    options.metrics.observe("leasehold_connections", "Open connections whose handshake is done.", () => this.#connections.size);
    options.metrics.observe(
      "leasehold_tls_certificate_end_seconds",
      "When the server's certificate ends, Unix time.",
      () => (this.#material?.notAfter ?? 0) / 1000,
    );
    options.metrics.observe(
      "leasehold_tls_reload_failing",
      "1 while the newest certificate, key, bundle or revocation list is not in use because something is wrong with it.",
      () => (this.#started?.reloader.failure === undefined ? 0 : 1),
    );
  }

  /** Reads the files and listens. Throws REQUEST_INVALID (files, address) or IN_USE, with a line for a person. @param grpc made with `createGrpcServerOptions`. */
  async start(grpc: Server): Promise<void> {
    const { files, listen, log, metrics, pollMs = 30_000 } = this.#options;
    const material = await loadMaterial(files, this.#clock.now());
    for (const warning of material.warnings) log.warn({ warning }, "TLS files");
    this.#material = material;
    const injectors = new Injectors(grpc, this.#clock);
    const acceptor = new Acceptor(material, { limits: this.#limits, refusals: this.#refusals, onSecure: (socket) => this.#open(socket, injectors) });
    const address = await acceptor.listen(listen);
    const reloader = new Reloader({ files, pollMs, clock: this.#clock, log, metrics, current: material, use: (next, changed) => this.#use(next, changed) });
    this.#started = { acceptor, injectors, reloader, address };
  }

  /** What is listened on, with the port that was chosen for 0. */
  get address(): string {
    return this.#started?.address ?? "";
  }

  /** An open connection by what `call.getPeer()` says; undefined: not one of ours, or closed. */
  connectionOf(peer: string): FrontConnection | undefined {
    return this.#connections.get(peer);
  }

  connections(): Iterable<FrontConnection> {
    return this.#connections.values();
  }

  /** Looks at the files now. Never throws: an invalid set keeps the old one, and the result (and the log, and `status`) says why. */
  reload(): Promise<ReloadResult> {
    return this.#started?.reloader.reload() ?? Promise.resolve({ changed: [], failure: "not started" });
  }

  status(): FrontStatus {
    return {
      certificateEnd: this.#material?.notAfter ?? 0,
      reloadFailure: this.#started?.reloader.failure,
      warnings: this.#material?.warnings ?? [],
      connections: this.#connections.size,
    };
  }

  /** Accepts no more, sends GOAWAY, lets calls end for at most `graceMs`, then destroys what is left. Resolves when every socket is closed. Idempotent. */
  drain(graceMs: number): Promise<void> {
    this.#draining ??= this.#drain(graceMs);
    return this.#draining;
  }

  async #drain(graceMs: number): Promise<void> {
    if (this.#started === undefined) return;
    const { acceptor, injectors, reloader } = this.#started;
    reloader.stop();
    acceptor.stop();
    injectors.drain(graceMs);
    const late = Promise.withResolvers<void>();
    const cancel = this.#clock.after(graceMs, late.resolve);
    await Promise.race([acceptor.idle(), late.promise]);
    cancel();
    await acceptor.destroyAll();
  }

  #open(socket: TLSSocket, injectors: Injectors): void {
    const peer = addressOf(socket);
    if (socket.alpnProtocol !== "h2") {
      this.#refusals.count("ALPN", { peer });
      socket.destroy();
      return;
    }
    const connection = this.#identify(socket, peer);
    if (connection.why !== undefined) {
      this.#refusals.count(connection.why, { peer, serial: connection.serial, fingerprint: connection.fingerprint });
      if (this.#options.refuse === "handshake") {
        socket.destroy();
        return;
      }
      connection.closeAfter(this.#limits.explainMs);
    } else connection.closeAtEnd(this.#limits.lingerMs);
    this.#connections.set(connection.id, connection);
    socket.once("close", () => this.#connections.delete(connection.id));
    // What `call.getPeer()` returns, on every kind of socket; an address would be reused, and read anew for each call.
    Object.defineProperties(socket, { remoteAddress: { value: connection.id }, remotePort: { value: undefined } });
    injectors.inject(socket);
  }

  #identify(socket: TLSSocket, peer: string): FrontConnection {
    const material = this.#material!;
    const leaf = socket.getPeerX509Certificate();
    const chain = leaf === undefined ? [] : presentedChain(leaf);
    // (@types/node knows `servername` on the server's side only by the handshake's callback.)
    const domain = domainFor(material, (socket as TLSSocket & { readonly servername?: string | false }).servername);
    const verdict = identifyPeer({ chain, authorized: socket.authorized, domain: material.domains.get(domain) }, this.#clock.now());
    const facts = {
      id: `c${(++this.#lastId).toString(36)}`,
      peer,
      serial: leaf?.serialNumber ?? "",
      fingerprint: leaf?.fingerprint256 ?? "",
      domain,
    };
    return new FrontConnection(facts, verdict, socket, this.#clock);
  }

  async #use(material: Material, changed: readonly ReloadChange[]): Promise<void> {
    this.#material = material;
    this.#started?.acceptor.use(material);
    if (changed.includes("trust")) this.#started?.injectors.renew(this.#limits.renewMs);
    if (changed.some((change) => change !== "certificate")) await this.#recheck();
  }

  /** Every open connection against the roots and lists of now; in slices, at 0.1–0.2 ms a connection. */
  async #recheck(): Promise<void> {
    let count = 0;
    for (const connection of Array.from(this.#connections.values())) {
      if (connection.why !== undefined || connection.closed) continue;
      const chain = connection.presented();
      // `authorized` was OpenSSL's word on the roots of then; the path is walked anew on those of now.
      const { refusal } = identifyPeer({ chain, authorized: true, domain: this.#material?.domains.get(connection.domain) }, this.#clock.now());
      if (refusal !== undefined) {
        this.#refusals.count(refusal, { peer: connection.peer, serial: connection.serial, fingerprint: connection.fingerprint });
        connection.refuse(refusal, this.#limits.lingerMs);
      }
      // oxlint-disable-next-line no-await-in-loop -- gives calls their turn
      if (++count % RECHECK_SLICE === 0) await nextTurn();
    }
  }
}
