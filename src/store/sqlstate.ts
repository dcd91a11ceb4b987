import { LeaseholdError } from "../base/errors.ts";

/** What the rest of the broker needs to know about a database error; the only file that knows SQLSTATE (PostgreSQL, appendix A). */
export type StoreFailure =
  /** The connection or the server is gone: nothing is known about a COMMIT that was under way. */
  | "connection"
  /** Rolled back for certain, and worth trying again as it was: lock timeout, deadlock, serialization, too many connections. */
  | "transient"
  /** A unique key is already there. */
  | "duplicate"
  /** No partition takes the row (finding 20). */
  | "no_partition"
  /** Out of disk or memory. */
  | "exhausted"
  /** Our own mistake or a broken store: trying again does not help. */
  | "other";

export function storeFailure(error: unknown): StoreFailure {
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code !== "string" || !/^[0-9A-Z]{5}$/.test(code)) return "connection"; // a socket error, or pg's own "Connection terminated"
  if (code.startsWith("08") || code.startsWith("57P") || code === "25006") return "connection";
  if (code === "55P03" || code === "57014" || code.startsWith("40") || code === "53300") return "transient";
  if (code === "23505") return "duplicate";
  if (code === "23514") return "no_partition";
  if (code.startsWith("53") || code === "58030") return "exhausted";
  return "other";
}

/** STORE_UNAVAILABLE for what may pass, INTERNAL for what will not; the driver's error is kept as the cause, for the log alone. */
export function storeError(error: unknown): LeaseholdError {
  if (error instanceof LeaseholdError) return error;
  const failure = storeFailure(error);
  if (failure === "other" || failure === "duplicate" || failure === "no_partition") return new LeaseholdError("INTERNAL", "store", { cause: error });
  const code = (error as { code?: unknown } | null)?.code;
  const why = typeof code === "string" ? ` (${code})` : "";
  return new LeaseholdError("STORE_UNAVAILABLE", `the store can't be asked${why}`, { cause: error, retryAfterMs: 1000 });
}
