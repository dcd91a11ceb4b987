import type { PolicyStore } from "../policy/store.ts";
import type { Access } from "./collaborators.ts";

/** The newest policies, asked anew for each decision. */
export function accessOf(store: PolicyStore): Access {
  return {
    get policies() {
      return store.current;
    },
    decide: (principal, capability, path, facts) => store.current.decide(principal, capability, path, facts),
    allowedPrefixes: (principal, capability) => store.current.allowedPrefixes(principal, capability),
    allowsFolder: (principal, capability, folder) => store.current.allowsFolder(principal, capability, folder),
  };
}
