import type { OutsideConfig } from "../outside.ts";

export interface GrpcConfig extends OutsideConfig {
  /** `host:port`. */
  readonly address: string;
  /** PEM of the CA that vouches for the service. */
  readonly caPem: string;
  /** Path of the secret with the fields `certificate` and `key`. */
  readonly clientSecret: string;
  /** Of the service. */
  readonly spiffeId: string;
}
