import { type Change, KEYRING_ROTATED } from "../model/event.ts";
import type { Keyring } from "./keyring.ts";

/** A seed that another replica added seals here too, from now on. */
export function keyringApplier(keyring: Keyring): { apply(changes: readonly Change[]): Promise<void>; reset(): Promise<void> } {
  const reload = async (): Promise<void> => {
    await keyring.unseal();
  };
  return {
    apply: async (changes) => {
      if (changes.some((change) => change.type === KEYRING_ROTATED)) await reload();
    },
    reset: reload,
  };
}
