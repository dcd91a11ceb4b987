import { isIP } from "node:net";
import type { OwnedObjects, Violation } from "../engine.ts";
import { isStatementSetName } from "./statement-set.ts";

/** Where a PostgreSQL target is, and as whom the broker goes there. The password is kept apart. */
export interface PostgresTargetConfig {
  readonly host: string;
  readonly port: number;
  /** The bootstrapped database that the broker works in. */
  readonly database: string;
  readonly username: string;
  readonly tls: TlsConfig;
  /** Of all replicas together; undefined: 16. */
  readonly maxConnections?: number | undefined;
}

/** `disable` is explicit and shows in `target test`; there is no mode that encrypts without checking who answers (lesson 18). */
export interface TlsConfig {
  readonly mode: "verify-full" | "disable";
  /** PEM file of the CA that signed the server's certificate; without it and `caPem`, the system's roots. */
  readonly caFile?: string | undefined;
  readonly caPem?: string | undefined;
  /** Name the certificate must carry, where it is not `host`. */
  readonly serverName?: string | undefined;
}

export interface PostgresRoleConfig {
  /** What clients are told to connect to. */
  readonly database: string;
  /** Group roles; each must be on the target's list of allowed groups. */
  readonly memberOf: readonly string[];
  /** 1 to 100,000. Below 4096 pgjdbc refuses to connect, below 1000 Go's lib/pq too (spikes.md 6). */
  readonly scramIterations: number;
  readonly connectionLimit?: number | undefined;
  readonly ownedObjects: OwnedObjects;
  /** Statements of the superuser's, by name: statement-set.ts. */
  readonly statementSet?: string | undefined;
}

export const DEFAULT_SCRAM_ITERATIONS = 4096;
export const MAX_SCRAM_ITERATIONS = 100_000;

const MAX_IDENTIFIER_BYTES = 63;
const MAX_GROUPS = 32;
const MAX_CONNECTION_LIMIT = 100_000;
const HOST = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?$/;

export function checkTargetConfig(config: PostgresTargetConfig): readonly Violation[] {
  const violations: Violation[] = [];
  const wrong = (field: string, description: string): unknown => violations.push({ field, description });
  if (config.host.length > 253 || !(HOST.test(config.host) || isIP(config.host) !== 0)) wrong("host", "must be a host name or an IP address");
  if (!isWithin(config.port, 1, 65_535)) wrong("port", "must be between 1 and 65535");
  if (!isIdentifier(config.database)) wrong("database", IDENTIFIER);
  if (!isIdentifier(config.username)) wrong("username", IDENTIFIER);
  const { mode, caFile, caPem, serverName } = config.tls;
  if (mode !== "verify-full" && mode !== "disable") wrong("tls.mode", "must be verify-full or disable");
  if (caFile !== undefined && caPem !== undefined) wrong("tls.ca_pem", "must not be set beside ca_file");
  if (mode === "disable" && (caFile ?? caPem ?? serverName) !== undefined) wrong("tls.mode", "must be verify-full when a CA or a server name is set");
  return violations;
}

export function checkRoleConfig(config: PostgresRoleConfig): readonly Violation[] {
  const violations: Violation[] = [];
  const wrong = (field: string, description: string): unknown => violations.push({ field, description });
  if (!isIdentifier(config.database)) wrong("database", IDENTIFIER);
  if (config.memberOf.length > MAX_GROUPS) wrong("member_of", `must have at most ${MAX_GROUPS} groups`);
  for (const [index, group] of config.memberOf.entries()) {
    if (!isIdentifier(group)) wrong(`member_of[${index}]`, IDENTIFIER);
    else if (config.memberOf.indexOf(group) !== index) wrong(`member_of[${index}]`, "must not repeat an earlier group");
  }
  if (!isWithin(config.scramIterations, 1, MAX_SCRAM_ITERATIONS)) wrong("scram_iterations", `must be between 1 and ${MAX_SCRAM_ITERATIONS}`);
  if (config.connectionLimit !== undefined && !isWithin(config.connectionLimit, 1, MAX_CONNECTION_LIMIT)) {
    wrong("connection_limit", `must be between 1 and ${MAX_CONNECTION_LIMIT}`);
  }
  if (config.statementSet !== undefined && !isStatementSetName(config.statementSet)) wrong("statement_set", "must be the name of a statement set");
  const owned = config.ownedObjects;
  if (owned.kind === "reassign_to" && !config.memberOf.includes(owned.role)) {
    // A group of the lease has no right that the lease lacks; any other owner could have (attack.md finding 6).
    wrong("owned_objects.reassign_to", "must be one of the groups in member_of");
  }
  return violations;
}

const IDENTIFIER = `must be 1 to ${MAX_IDENTIFIER_BYTES} bytes without control characters`;

function isIdentifier(value: string): boolean {
  // oxlint-disable-next-line no-control-regex -- they are what is refused
  return value.length > 0 && Buffer.byteLength(value) <= MAX_IDENTIFIER_BYTES && !/[\u0000-\u001f\u007f]/.test(value) && value.isWellFormed();
}

function isWithin(value: number, low: number, high: number): boolean {
  return Number.isInteger(value) && value >= low && value <= high;
}
