import { readFileSync, statSync, writeFileSync } from "node:fs";
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
    const { mode } = statSync(path);
    if ((mode & 0o077) !== 0) throw new LeaseholdError("KMS_UNAVAILABLE", `${path} may be read by others (mode ${(mode & 0o777).toString(8)}): chmod 600 it`);
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof LeaseholdError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT" || !create)
      throw new LeaseholdError("KMS_UNAVAILABLE", `the key file ${path} can't be read (${code ?? "unknown"})`, { cause: error });
    const line = newMasterKeyLine();
    writeFileSync(path, line, { mode: 0o600, flag: "wx" });
    return line;
  }
}
