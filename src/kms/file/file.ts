import { randomUUID } from "node:crypto";
import { closeSync, existsSync, fstatSync, fsyncSync, linkSync, openSync, readFileSync, unlinkSync, writeSync } from "node:fs";
import { LeaseholdError } from "../../base/errors.ts";
import type { Kms } from "../kms.ts";
import { masterKeyKms, newMasterKeyLine, parseMasterKeys } from "../master-key.ts";

/**
 * Master keys in a file that only its owner may read. @param create make the file when it is missing (development only: a missing key in production must not
 * look like a new installation). Throws KMS_UNAVAILABLE with one clear line.
 */
export function openFileKms(path: string, create: boolean): Kms {
  const keys = parseMasterKeys(read(path, create));
  if (keys === undefined) throw new LeaseholdError("KMS_UNAVAILABLE", `${path} is not a key file: each line must be leasehold-kms-v1:<base64 of 32 bytes>`);
  return masterKeyKms("file", keys);
}

function read(path: string, create: boolean): string {
  try {
    if (create && !existsSync(path)) makeIfMissing(path);
    return readPrivate(path);
  } catch (error) {
    if (error instanceof LeaseholdError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    throw new LeaseholdError("KMS_UNAVAILABLE", `the key file ${path} can't be read (${code ?? "unknown"})`, { cause: error });
  }
}

/** Looks at the mode of what it reads, not of what stood at the path a moment before. */
function readPrivate(path: string): string {
  const file = openSync(path, "r");
  try {
    const { mode } = fstatSync(file);
    if ((mode & 0o077) !== 0) throw new LeaseholdError("KMS_UNAVAILABLE", `${path} may be read by others (mode ${(mode & 0o777).toString(8)}): chmod 600 it`);
    return readFileSync(file, "utf8");
  } finally {
    closeSync(file);
  }
}

/** Written whole under another name, then linked: of two processes that start at once both read the same key, and a crash leaves no half of one. */
function makeIfMissing(path: string): void {
  const draft = `${path}.${randomUUID()}`;
  const file = openSync(draft, "wx", 0o600);
  try {
    writeSync(file, newMasterKeyLine());
    fsyncSync(file);
    linkSync(draft, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  } finally {
    closeSync(file);
    unlinkSync(draft);
  }
}
