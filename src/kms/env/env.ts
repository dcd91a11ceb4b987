import { LeaseholdError } from "../../base/errors.ts";
import type { Kms } from "../kms.ts";
import { masterKeyKms, parseMasterKeys } from "../master-key.ts";

/** Master keys in an environment variable (lines as in the key file). The variable is removed once read, so that no child process inherits it. Throws KMS_UNAVAILABLE. */
export function openEnvKms(variable: string, env: NodeJS.ProcessEnv): Kms {
  const text = env[variable];
  delete env[variable];
  if (text === undefined) throw new LeaseholdError("KMS_UNAVAILABLE", `the environment variable ${variable} is not set`);
  const keys = parseMasterKeys(text);
  if (keys === undefined) throw new LeaseholdError("KMS_UNAVAILABLE", `${variable} must be leasehold-kms-v1:<base64 of 32 bytes>`);
  return masterKeyKms("env", keys);
}
