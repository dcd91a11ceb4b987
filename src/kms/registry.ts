import { takeEnvKms } from "./env/env.ts";
import { openFileKms } from "./file/file.ts";
import type { Kms } from "./kms.ts";

export type KmsConfig =
  | { readonly provider: "file"; readonly path: string; readonly create: boolean }
  | { readonly provider: "env"; readonly variable: string };

/**
 * The configured provider, opened when it is first used and, while that fails, at every use again: a broker whose key is missing starts sealed and goes on once
 * the key is there. Each use throws KMS_UNAVAILABLE with one clear line until then.
 */
export function openKms(config: KmsConfig, env: NodeJS.ProcessEnv): Kms {
  const open = opener(config, env);
  let opened: Kms | undefined;
  const kms = (): Kms => (opened ??= open());
  return {
    provider: config.provider,
    get keyId() {
      return kms().keyId;
    },
    wrap: async (plaintext, context) => kms().wrap(plaintext, context),
    unwrap: async (wrapped, context) => kms().unwrap(wrapped, context),
    sign: async (data) => kms().sign(data),
    publicKey: async () => kms().publicKey(),
  };
}

/** One line per provider. */
function opener(config: KmsConfig, env: NodeJS.ProcessEnv): () => Kms {
  switch (config.provider) {
    case "file":
      return () => openFileKms(config.path, config.create);
    case "env":
      return takeEnvKms(config.variable, env);
  }
}
