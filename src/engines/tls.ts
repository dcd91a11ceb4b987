import { isIP } from "node:net";
import { checkServerIdentity, type ConnectionOptions } from "node:tls";
import type { Violation } from "./engine.ts";

/** `disable` is explicit and shows in `target test`; there is no mode that encrypts without checking who answers (lesson 18). */
export interface TlsConfig {
  readonly mode: "verify-full" | "disable";
  /** PEM of the CA that signed the server's certificate; without it, the system's roots. */
  readonly caPem?: string | undefined;
}

/** Where a target is, and as whom the broker goes there. */
export interface ServerConfig {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  readonly tls: TlsConfig;
  /** Of all replicas together; undefined: 16. */
  readonly maxConnections?: number | undefined;
}

const HOST = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?$/;

/** @param maxUsername in bytes. */
export function checkServer(config: ServerConfig, maxUsername: number): Violation[] {
  const violations: Violation[] = [];
  const wrong = (field: string, description: string): unknown => violations.push({ field, description });
  if (config.host.length > 253 || !(HOST.test(config.host) || isIP(config.host) !== 0)) wrong("host", "must be a host name or an IP address");
  if (!(Number.isInteger(config.port) && config.port >= 1 && config.port <= 65_535)) wrong("port", "must be between 1 and 65535");
  if (!/^[\x21-\x7e]+$/.test(config.username) || config.username.length > maxUsername)
    wrong("username", `must be 1 to ${maxUsername} printable ASCII characters`);
  const { mode, caPem } = config.tls;
  if (mode !== "verify-full" && mode !== "disable") wrong("tls.mode", "must be verify-full or disable");
  if (mode === "disable" && caPem !== undefined) wrong("tls.mode", "must be verify-full when a CA is set");
  return violations;
}

export function tlsOptions(config: ServerConfig): ConnectionOptions | undefined {
  const { mode, caPem } = config.tls;
  if (mode === "disable") return undefined;
  return {
    rejectUnauthorized: true,
    minVersion: "TLSv1.2",
    ...(isIP(config.host) === 0 ? { servername: config.host } : {}),
    checkServerIdentity: (_asked, certificate) => checkServerIdentity(config.host, certificate),
    ...(caPem === undefined ? {} : { ca: caPem }),
  };
}

/** Codes of Node's TLS errors. */
export const TLS_CODE = /^(ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO$)/;

export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}
