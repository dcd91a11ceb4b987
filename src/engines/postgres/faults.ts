import { LeaseholdError } from "../../base/errors.ts";
import { AuthenticationRefused } from "./wire.ts";

/**
 * Metadata `problem` of a TARGET_* error; public. What an operator does about each is in docs/errors.md.
 */
export type Problem =
  | "authentication_failed"
  | "authentication_refused"
  | "tls"
  | "database_missing"
  | "not_bootstrapped"
  | "bootstrap_outdated"
  | "bootstrap_refused"
  | "permission_missing"
  | "deadline_passed"
  | "group_not_allowed"
  | "group_too_powerful"
  | "different_server"
  | "in_recovery"
  | "name_taken"
  | "role_protected"
  | "role_renamed"
  | "login_missing"
  | "login_enabled"
  | "owned_objects"
  | "new_owner_not_allowed"
  | "sessions_remain"
  | "login_not_allowed"
  | "login_not_a_member"
  | "generation_passed"
  | "other_rotation"
  | "statement_failed"
  | "statement_set_missing"
  | "statement_refused"
  | "malformed";

type Fault = readonly ["TARGET_UNAVAILABLE" | "TARGET_MISCONFIGURED", Problem];

const BY_SQLSTATE: Readonly<Record<string, Fault>> = {
  "28000": ["TARGET_MISCONFIGURED", "authentication_failed"],
  "28P01": ["TARGET_MISCONFIGURED", "authentication_failed"],
  "3D000": ["TARGET_MISCONFIGURED", "database_missing"],
  "3F000": ["TARGET_MISCONFIGURED", "not_bootstrapped"],
  "42883": ["TARGET_MISCONFIGURED", "not_bootstrapped"],
  "42501": ["TARGET_MISCONFIGURED", "permission_missing"],
  P0001: ["TARGET_MISCONFIGURED", "bootstrap_refused"], // only the bootstrap raises without a code; its cause says why
  "2BP01": ["TARGET_MISCONFIGURED", "owned_objects"],
  "25006": ["TARGET_UNAVAILABLE", "in_recovery"],
  LH001: ["TARGET_UNAVAILABLE", "deadline_passed"],
  LH002: ["TARGET_MISCONFIGURED", "group_not_allowed"],
  LH003: ["TARGET_MISCONFIGURED", "group_too_powerful"],
  LH004: ["TARGET_MISCONFIGURED", "different_server"],
  LH005: ["TARGET_MISCONFIGURED", "name_taken"],
  LH006: ["TARGET_MISCONFIGURED", "role_protected"],
  LH007: ["TARGET_MISCONFIGURED", "role_renamed"],
  LH008: ["TARGET_MISCONFIGURED", "login_enabled"],
  LH009: ["TARGET_MISCONFIGURED", "owned_objects"],
  LH010: ["TARGET_MISCONFIGURED", "not_bootstrapped"],
  LH011: ["TARGET_MISCONFIGURED", "malformed"],
  LH012: ["TARGET_MISCONFIGURED", "new_owner_not_allowed"],
  LH013: ["TARGET_MISCONFIGURED", "login_missing"],
  LH014: ["TARGET_MISCONFIGURED", "login_not_allowed"],
  LH015: ["TARGET_MISCONFIGURED", "generation_passed"],
  LH017: ["TARGET_UNAVAILABLE", "other_rotation"],
  LH016: ["TARGET_MISCONFIGURED", "login_not_a_member"],
  LH020: ["TARGET_MISCONFIGURED", "statement_failed"],
  LH021: ["TARGET_MISCONFIGURED", "statement_set_missing"],
  LH022: ["TARGET_MISCONFIGURED", "statement_refused"],
};

const TLS_CODE = /^(ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO$)/;

/**
 * What the driver threw, as the engine's error. The cause keeps class, code and message alone: a driver's error also carries `where` and
 * `internalQuery`, which may hold a statement's text, and a log would print them (finding 25).
 */
export function targetError(error: unknown): LeaseholdError {
  if (error instanceof LeaseholdError) return error;
  const { code, message } = describe(error);
  const cause = new Error(`${code}: ${message}`);
  const [reason, problem] = classify(error, code, message);
  return new LeaseholdError(reason, `target: ${problem ?? code}`, {
    cause,
    ...(problem === undefined ? {} : { metadata: { problem, ...statementOf(error, problem) } }),
  });
}

/** Which statement of a set it was, such as `drop 2: 42P01`. Only of this form: any other detail of a server's may hold data. */
function statementOf(error: unknown, problem: Problem): { readonly statement?: string } {
  const detail = problem === "statement_failed" && error instanceof Error && "detail" in error ? String(error.detail) : "";
  return /^(create|drop) \d{1,3}: [0-9A-Z]{5}$/.test(detail) ? { statement: detail } : {};
}

/** TARGET_MISCONFIGURED with its problem; `details` are identifiers that the caller may see. */
export function misconfigured(problem: Problem, details: Readonly<Record<string, string>> = {}): LeaseholdError {
  return new LeaseholdError("TARGET_MISCONFIGURED", `target: ${problem}`, { metadata: { problem, ...details } });
}

export function problemOf(error: unknown): string | undefined {
  return error instanceof LeaseholdError ? error.metadata["problem"] : undefined;
}

/** True when the server answered the statement by an error of ours, and so the session is as good as before. */
export function leavesSessionUsable(error: unknown): boolean {
  return describe(error).code.startsWith("LH");
}

function classify(error: unknown, code: string, message: string): Fault | readonly ["TARGET_UNAVAILABLE", undefined] {
  if (error instanceof AuthenticationRefused || message.startsWith("SASL: ")) return ["TARGET_MISCONFIGURED", "authentication_refused"];
  if (TLS_CODE.test(code) || message === "The server does not support SSL connections") return ["TARGET_MISCONFIGURED", "tls"];
  if (code === "ENOENT" || code === "EACCES") return ["TARGET_MISCONFIGURED", "tls"]; // the CA file; sockets are never paths here
  return BY_SQLSTATE[code] ?? ["TARGET_UNAVAILABLE", undefined];
}

function describe(error: unknown): { code: string; message: string } {
  if (!(error instanceof Error)) return { code: "unknown", message: "" };
  const code = "code" in error && typeof error.code === "string" ? error.code : error.name;
  return { code, message: error.message };
}
