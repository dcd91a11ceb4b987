import { LeaseholdError } from "../../base/errors.ts";
import { misconfigured } from "../own-login.ts";
import { TLS_CODE } from "../tls.ts";

/** By the driver's name of the error number. */
const BY_CODE: Readonly<Record<string, string>> = {
  ER_ACCESS_DENIED_ERROR: "authentication_failed",
  ER_ACCESS_DENIED_NO_PASSWORD_ERROR: "authentication_failed",
  ER_NOT_SUPPORTED_AUTH_MODE: "authentication_refused",
  AUTH_SWITCH_PLUGIN_ERROR: "authentication_refused",
  HANDSHAKE_NO_SSL_SUPPORT: "tls",
  HANDSHAKE_SSL_ERROR: "tls",
  ER_DBACCESS_DENIED_ERROR: "permission_missing",
  ER_TABLEACCESS_DENIED_ERROR: "permission_missing",
  ER_SPECIFIC_ACCESS_DENIED_ERROR: "permission_missing",
  ER_COLUMNACCESS_DENIED_ERROR: "permission_missing",
  ER_BAD_DB_ERROR: "database_missing",
  ER_NO_SUCH_TABLE: "malformed",
  ER_ILLEGAL_GRANT_FOR_TABLE: "malformed",
  ER_PARSE_ERROR: "malformed",
  ER_OPTION_PREVENTS_STATEMENT: "in_recovery",
};

/** What the driver threw, as the engine's error: its message and its `sql` quote statements, which may hold a password, and do not go on (finding 25). */
export function targetError(error: unknown): LeaseholdError {
  if (error instanceof LeaseholdError) return error;
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "unknown";
  const problem = BY_CODE[code] ?? (TLS_CODE.test(code) ? "tls" : undefined);
  if (problem !== undefined && problem !== "in_recovery") return misconfigured(problem);
  return new LeaseholdError("TARGET_UNAVAILABLE", `target: ${problem ?? code}`, {
    cause: new Error(code),
    ...(problem === undefined ? {} : { metadata: { problem } }),
  });
}
