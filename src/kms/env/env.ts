import { LeaseholdError } from "../../base/errors.ts";
import type { Kms } from "../kms.ts";
import { masterKeyKms, parseMasterKeys } from "../master-key.ts";

/**
 * Master keys in an environment variable (lines as in the key file). The variable is taken out at once, before a child process could inherit it (attack C7); what the
 * process was started with stays readable at /proc/<pid>/environ for its own user and root. The function it answers throws KMS_UNAVAILABLE.
 */
export function takeEnvKms(variable: string, env: NodeJS.ProcessEnv): () => Kms {
  const text = env[variable];
  delete env[variable];
  const problem = text === undefined ? `the environment variable ${variable} is not set` : `${variable} must be leasehold-kms-v1:<base64 of 32 bytes>`;
  const keys = parseMasterKeys(text ?? "");
  // What follows must not name `text`: the key's own characters would stay in the heap for as long as the process lives.
  return () => {
    if (keys === undefined) throw new LeaseholdError("KMS_UNAVAILABLE", problem);
    return masterKeyKms("env", keys);
  };
}
