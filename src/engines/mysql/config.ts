import { isIP } from "node:net";
import type { Violation } from "../engine.ts";
import { checkServer, type ServerConfig } from "../tls.ts";

/** Where a MySQL or MariaDB target is, and as whom the broker goes there. The password is kept apart. */
export type MysqlTargetConfig = ServerConfig;

export interface MysqlGrant {
  /** Of `PRIVILEGES`. */
  readonly privileges: readonly string[];
  readonly schema: string;
  /** Undefined: the whole schema. */
  readonly table?: string | undefined;
}

export interface MysqlRoleConfig {
  /** What clients are told to use; undefined: nothing. */
  readonly database?: string | undefined;
  readonly grants: readonly MysqlGrant[];
  /** Host part of the account. */
  readonly hostPattern: string;
  readonly connectionLimit?: number | undefined;
}

/** None lets a lease give rights on, make objects that outlive it, or reach the server's files, users or settings. The value says whether a single table can have it. */
const PRIVILEGES: ReadonlyMap<string, boolean> = new Map([
  ["SELECT", true],
  ["INSERT", true],
  ["UPDATE", true],
  ["DELETE", true],
  ["SHOW VIEW", true],
  ["EXECUTE", false],
  ["CREATE TEMPORARY TABLES", false],
  ["LOCK TABLES", false],
]);
const SYSTEM_SCHEMAS: ReadonlySet<string> = new Set(["mysql", "sys", "information_schema", "performance_schema"]);
const MAX_GRANTS = 32;
const MAX_CONNECTION_LIMIT = 10_000;
const NAME = "must be 1 to 64 characters without control characters, backslash or trailing space";

export function checkTargetConfig(config: MysqlTargetConfig): readonly Violation[] {
  const violations = checkServer(config, 80);
  // The driver checks the certificate's name only where there is a name.
  if (config.tls.mode === "verify-full" && isIP(config.host) !== 0)
    violations.push({ field: "host", description: "must be a host name, not an address, with TLS" });
  return violations;
}

export function checkRoleConfig(config: MysqlRoleConfig): readonly Violation[] {
  const violations: Violation[] = [];
  const wrong = (field: string, description: string): unknown => violations.push({ field, description });
  if (config.database !== undefined && !isName(config.database)) wrong("database", NAME);
  if (config.grants.length === 0 || config.grants.length > MAX_GRANTS) wrong("grants", `must have 1 to ${MAX_GRANTS} grants`);
  if (!/^[A-Za-z0-9.:%_/-]{1,60}$/.test(config.hostPattern)) wrong("host_pattern", "must be an address, a name or a pattern with % and _");
  const limit = config.connectionLimit;
  if (limit !== undefined && !(Number.isInteger(limit) && limit >= 1 && limit <= MAX_CONNECTION_LIMIT))
    wrong("connection_limit", `must be between 1 and ${MAX_CONNECTION_LIMIT}`);
  for (const [index, grant] of config.grants.entries()) {
    for (const { field, description } of checkGrant(grant)) wrong(`grants[${index}].${field}`, description);
  }
  return violations;
}

function checkGrant({ privileges, schema, table }: MysqlGrant): Violation[] {
  const violations: Violation[] = [];
  const wrong = (field: string, description: string): unknown => violations.push({ field, description });
  if (privileges.length === 0) wrong("privileges", "must have at least one");
  for (const [index, privilege] of privileges.entries()) {
    const ofTable = PRIVILEGES.get(privilege);
    if (ofTable === undefined) wrong(`privileges[${index}]`, `must be one of ${[...PRIVILEGES.keys()].join(", ")}`);
    else if (table !== undefined && !ofTable) wrong(`privileges[${index}]`, "can't be granted on a single table");
  }
  if (!isName(schema)) wrong("schema", NAME);
  else if (SYSTEM_SCHEMAS.has(schema.toLowerCase())) wrong("schema", "must not be one of the server's own");
  if (table !== undefined && !isName(table)) wrong("table", NAME);
  return violations;
}

function isName(value: string): boolean {
  // oxlint-disable-next-line no-control-regex -- they are what is refused
  return value.length > 0 && value.length <= 64 && !/[\\\u0000-\u001f\u007f]|\s$/.test(value) && value.isWellFormed();
}
