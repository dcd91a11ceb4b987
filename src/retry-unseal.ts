import type { Log } from "./base/log.ts";
import type { Keyring } from "./crypto/keyring.ts";

const UNSEAL_RETRY_MS = 5000;

/** Tries a keyring that did not open again and again, and calls `open` once it has. The timer's end is added to `stops`. */
export function retryUnseal(keyring: Keyring, open: () => Promise<void>, log: Log, stops: (() => Promise<void>)[]): void {
  log.error({ problem: keyring.problem }, "the keyring does not open: every call is answered SEALED");
  let trying = false;
  const again = async (): Promise<void> => {
    if (trying || !(await keyring.unseal())) return;
    trying = true;
    try {
      await open();
      clearInterval(timer);
      log.info("the keyring is open: serving");
    } finally {
      trying = false;
    }
  };
  const timer = setInterval(
    () => void again().catch((error: Error) => log.error({ error: error.message }, "the keyring could not be tried again")),
    UNSEAL_RETRY_MS,
  );
  stops.push(async () => clearInterval(timer));
}
