import type { Reason } from "../base/errors.ts";
import type { Principal } from "../model/principal.ts";

/** What the TLS front knows about an open connection; worked out once, at its start. */
export interface Connection {
  readonly id: string;
  /** The peer's address in clear, for the audit's keyed hash. */
  readonly peer: string;
  /** Hexadecimal serial number of the client's certificate; empty when refused. */
  readonly serial: string;
  /** Unix milliseconds at which the certificate ends; checked at every call. */
  readonly notAfter: number;
  /** Who calls. Undefined together with a refusal. */
  readonly principal: Principal | undefined;
  /**
   * Set when nothing on this connection may be answered (revoked while open; in development mode also what the handshake would have
   * refused). It wins over `principal` (lesson 48: an error *and* an identity came back, and the identity was used).
   */
  readonly refusal: Reason | undefined;
  /** A constant finer than the refusal, for whoever has to mend the certificate: `NO_CERTIFICATE`, `KEY_USAGE`, … (src/identity/refusal.ts). */
  readonly why?: string | undefined;
}

/** The front's open connections, by what `call.getPeer()` returns: the id that the front put on the socket. */
export interface Connections {
  connectionOf(peer: string): Connection | undefined;
}

/** Why nothing may be answered on a connection (any more); undefined when all is well. */
export function refusalOf(connection: Connection | undefined, now: number): Reason | undefined {
  if (connection === undefined) return "PRINCIPAL_INVALID";
  if (connection.refusal !== undefined) return connection.refusal;
  if (connection.notAfter <= now) return "CERTIFICATE_EXPIRED";
  return connection.principal === undefined ? "PRINCIPAL_INVALID" : undefined;
}
