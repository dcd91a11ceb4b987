import type { Kms } from "./kms.ts";
import { openEnvKms } from "./env/env.ts";
import { openFileKms } from "./file/file.ts";

export type KmsConfig = { readonly provider: "file"; readonly path: string; readonly create: boolean } | { readonly provider: "env"; readonly variable: string };

/** Opens the configured provider. Throws KMS_UNAVAILABLE with one clear line. */
export function openKms(config: KmsConfig, env: NodeJS.ProcessEnv): Kms {
  switch (config.provider) {
    case "file":
      return openFileKms(config.path, config.create);
    case "env":
      return openEnvKms(config.variable, env);
  }
}
