import type { Clock } from "../base/clock.ts";
import type { Reason } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { type PeerRefusal, REFUSAL_TEXT } from "../identity/refusal.ts";

/** Why a connection did not come about: the peer's certificate, or what happened before anyone looked at it. */
export type FrontRefusal =
  | PeerRefusal
  | "TLS_VERSION"
  | "ALPN"
  | "HANDSHAKE_TIMEOUT"
  | "HANDSHAKE_FAILED"
  | "TOO_MANY_CONNECTIONS"
  | "TOO_MANY_FROM_ADDRESS"
  | "TOO_MANY_HANDSHAKES";

const TEXT: Readonly<Record<FrontRefusal, string>> = {
  ...REFUSAL_TEXT,
  TLS_VERSION: "the client offers no TLS 1.3",
  ALPN: "the client does not offer HTTP/2 (ALPN h2)",
  HANDSHAKE_TIMEOUT: "the handshake took too long",
  HANDSHAKE_FAILED: "the handshake failed",
  TOO_MANY_CONNECTIONS: "too many connections",
  TOO_MANY_FROM_ADDRESS: "too many connections from this address",
  TOO_MANY_HANDSHAKES: "too many handshakes under way",
};

/** What calls on a connection are answered with, if it lives. */
export function reasonOf(refusal: PeerRefusal): Reason {
  if (refusal === "EXPIRED") return "CERTIFICATE_EXPIRED";
  return refusal === "REVOKED" ? "CERTIFICATE_REVOKED" : "PRINCIPAL_INVALID";
}

/** OpenSSL's and Node's error codes of a failed handshake. */
export function handshakeRefusal(error: Error): FrontRefusal {
  const code = (error as NodeJS.ErrnoException).code ?? "";
  if (code === "ERR_TLS_HANDSHAKE_TIMEOUT") return "HANDSHAKE_TIMEOUT";
  if (code === "ERR_SSL_UNSUPPORTED_PROTOCOL" || code.includes("VERSION")) return "TLS_VERSION";
  return code === "ERR_SSL_NO_APPLICATION_PROTOCOL" ? "ALPN" : "HANDSHAKE_FAILED";
}

export interface RefusedPeer {
  readonly peer: string;
  readonly serial?: string | undefined;
  readonly fingerprint?: string | undefined;
  readonly code?: string | undefined;
}

const LINES_PER_SECOND = 5;

interface Budget {
  second: number;
  lines: number;
  unlogged: number;
}

/**
 * Counts every refusal, and logs them: Node sends no alert of its own, so that this line is the only place that says why. A flood of one reason is cut, hides no
 * other reason, and says how much was cut.
 */
export class Refusals {
  readonly #log: Log;
  readonly #metrics: Metrics;
  readonly #clock: Clock;
  readonly #budgets = new Map<FrontRefusal, Budget>();

  constructor(log: Log, metrics: Metrics, clock: Clock) {
    this.#log = log;
    this.#metrics = metrics;
    this.#clock = clock;
  }

  count(refusal: FrontRefusal, peer: RefusedPeer): void {
    this.#metrics.counter("leasehold_connections_refused_total", "Connections refused, by reason.", { reason: refusal }).add();
    const second = Math.floor(this.#clock.now() / 1000);
    let budget = this.#budgets.get(refusal);
    if (budget?.second !== second) this.#budgets.set(refusal, (budget = { second, lines: 0, unlogged: budget?.unlogged ?? 0 }));
    if (++budget.lines > LINES_PER_SECOND) {
      budget.unlogged++;
      return;
    }
    const unlogged = budget.unlogged || undefined;
    budget.unlogged = 0;
    this.#log.warn({ refusal, ...peer, unlogged }, `connection refused: ${TEXT[refusal]}`);
  }
}
