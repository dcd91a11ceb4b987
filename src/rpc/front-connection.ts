import type { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import type { Clock } from "../base/clock.ts";
import type { Reason } from "../base/errors.ts";
import type { Principal } from "../model/principal.ts";
import { presentedChain } from "../identity/path.ts";
import { type PeerVerdict } from "../identity/peer.ts";
import type { PeerRefusal } from "../identity/refusal.ts";
import type { Connection } from "./connection.ts";
import { reasonOf } from "./front-refusals.ts";

export interface ConnectionFacts {
  readonly id: string;
  readonly peer: string;
  readonly serial: string;
  /** SHA-256 of the certificate, as OpenSSL prints it; empty without one. */
  readonly fingerprint: string;
  /** The trust domain of the TLS context. */
  readonly domain: string;
}

/**
 * An open connection. `open → refused → closed`: refused, it answers nothing but its refusal until it is closed a moment later, so that calls under way learn why.
 * A refusal is never taken back.
 */
export class FrontConnection implements Connection {
  readonly id: string;
  readonly peer: string;
  readonly serial: string;
  readonly fingerprint: string;
  readonly domain: string;
  readonly principal: Principal | undefined;
  readonly notAfter: number;
  /** The finer reason behind `refusal`. */
  why: PeerRefusal | undefined;
  readonly #socket: TLSSocket;
  readonly #clock: Clock;
  #cancel: () => void = () => {};

  constructor(facts: ConnectionFacts, verdict: PeerVerdict, socket: TLSSocket, clock: Clock) {
    this.id = facts.id;
    this.peer = facts.peer;
    this.serial = facts.serial;
    this.fingerprint = facts.fingerprint;
    this.domain = facts.domain;
    this.principal = verdict.refusal === undefined ? verdict.principal : undefined;
    this.notAfter = verdict.refusal === undefined ? verdict.notAfter : Infinity;
    this.why = verdict.refusal;
    this.#socket = socket;
    this.#clock = clock;
    socket.once("close", () => this.#cancel());
  }

  get closed(): boolean {
    return this.#socket.destroyed;
  }

  get refusal(): Reason | undefined {
    return this.why && reasonOf(this.why);
  }

  /** What the peer presented, leaf first, from OpenSSL, which keeps it anyway: here it would be another kilobyte a connection. Empty when the connection is closed. */
  presented(): X509Certificate[] {
    const leaf = this.#socket.getPeerX509Certificate();
    return leaf === undefined ? [] : presentedChain(leaf);
  }

  /** Refuses and closes by itself when the certificate ends. */
  closeAtEnd(lingerMs: number): void {
    const left = this.notAfter - this.#clock.now();
    // Far ends come in steps: a timer holds 24.8 days.
    this.#cancel = this.#clock.after(left, () => (this.notAfter <= this.#clock.now() ? this.refuse("EXPIRED", lingerMs) : this.closeAtEnd(lingerMs)));
  }

  /** From now on every call is answered with the reason; after `lingerMs` the connection is closed. The first refusal stays. */
  refuse(why: PeerRefusal, lingerMs: number): void {
    if (this.closed) return;
    if (this.why === undefined) this.why = why;
    this.closeAfter(lingerMs);
  }

  closeAfter(ms: number): void {
    this.#cancel();
    this.#cancel = this.#clock.after(ms, () => this.destroy());
  }

  destroy(): void {
    this.#socket.destroy();
  }
}
