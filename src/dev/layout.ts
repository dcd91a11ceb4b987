import { join } from "node:path";

/** Where a development broker keeps its things, below `.leasehold/`. */
export interface Layout {
  readonly root: string;
  readonly pki: string;
  readonly postgres: string;
  readonly redis: string;
  /** Ports and passwords of the private servers, 0600. */
  readonly secrets: string;
  /** Configuration that `leasehold server` understands as well, 0600. */
  readonly config: string;
  readonly kmsKey: string;
  /** Tells the CLI where the running broker is. */
  readonly dev: string;
}

export function layoutOf(root: string): Layout {
  return {
    root,
    pki: join(root, "pki"),
    postgres: join(root, "postgres"),
    redis: join(root, "redis"),
    secrets: join(root, "secrets.json"),
    config: join(root, "leasehold.yaml"),
    kmsKey: join(root, "kms.key"),
    dev: join(root, "dev.json"),
  };
}
