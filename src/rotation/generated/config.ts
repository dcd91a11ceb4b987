import type { PasswordPolicyConfig } from "../../model/target.ts";

export interface GeneratedConfig {
  readonly fields: readonly GeneratedField[];
}

/** One value, or a key pair in two fields (PKCS #8 and SPKI, PEM). */
export type GeneratedField = { readonly name: string } & (
  | { readonly kind: "password"; readonly policy: PasswordPolicyConfig | undefined }
  | { readonly kind: "random"; readonly size: number; readonly encoding: "base64url" | "hex" | "raw" }
  | { readonly kind: "key_pair"; readonly publicName: string; readonly algorithm: KeyAlgorithm }
);

export const KEY_ALGORITHMS = ["ed25519", "x25519", "ec_p256", "ec_p384", "rsa_2048", "rsa_3072", "rsa_4096"] as const;
export type KeyAlgorithm = (typeof KEY_ALGORITHMS)[number];
