import { type Change, isSecretChange } from "../model/event.ts";
import type { SecretReader } from "./read.ts";

/** Keeps the read cache honest: what changed is read anew. */
export function secretApplier(reader: SecretReader): { apply(changes: readonly Change[]): void; reset(): Promise<void> } {
  return {
    apply(changes) {
      for (const change of changes) if (isSecretChange(change.type)) reader.forget(change.path);
    },
    async reset() {
      reader.forgetAll();
    },
  };
}
