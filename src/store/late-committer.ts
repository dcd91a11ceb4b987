import { LeaseholdError } from "../base/errors.ts";
import type { Command, Committer, Outcome } from "./command.ts";

/** Stands where the committer will be once the keyring is open (its records hold keyed hashes); until then every change is refused with SEALED. */
export class LateCommitter implements Committer {
  ready: Committer | undefined;

  commit(command: Command, when?: "now" | "soon"): Promise<Outcome> {
    return this.ready?.commit(command, when) ?? Promise.reject(new LeaseholdError("SEALED"));
  }
}
