/** What a policy can allow or deny; the order is the bit order of a compiled rule. Names are those of the API (docs: policies). */
export const CAPABILITIES = [
  "read",
  "describe",
  "list",
  "write",
  "delete",
  "undelete",
  "destroy",
  "rotate",
  "watch",
  "issue",
  "renew",
  "revoke",
  "encrypt",
  "decrypt",
  "sign",
  "verify",
  "rewrap",
  "policy-read",
  "policy-write",
  "audit-read",
  "operate",
] as const;

export type Capability = (typeof CAPABILITIES)[number];
