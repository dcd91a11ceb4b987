import { LeaseholdError } from "../../base/errors.ts";
import { misconfigured } from "../own-login.ts";
import { TLS_CODE } from "../tls.ts";

/** The server's own answer begins with one of these words. */
const BY_WORD: Readonly<Record<string, string>> = {
  WRONGPASS: "authentication_failed",
  NOAUTH: "authentication_failed",
  NOPERM: "permission_missing",
};
const IN_RECOVERY: ReadonlySet<string> = new Set(["READONLY", "LOADING", "MASTERDOWN"]);

/**
 * What the driver threw, as the engine's error. Neither its message nor its fields go on: a ReplyError carries the command's arguments, and
 * the message of a refused rule quotes it (finding 25).
 */
export function targetError(error: unknown): LeaseholdError {
  if (error instanceof LeaseholdError) return error;
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
  const word = error instanceof Error ? (/^[A-Z]{2,20}(?= )/.exec(error.message)?.[0] ?? error.name) : "unknown";
  if (code !== undefined && TLS_CODE.test(code)) return misconfigured("tls");
  const problem = BY_WORD[word];
  if (problem !== undefined) return misconfigured(problem);
  if (word === "ERR") return misconfigured("malformed");
  const metadata = IN_RECOVERY.has(word) ? { problem: "in_recovery" } : undefined;
  return new LeaseholdError("TARGET_UNAVAILABLE", `target: ${code ?? word}`, {
    cause: new Error(code ?? word),
    ...(metadata === undefined ? {} : { metadata }),
  });
}
