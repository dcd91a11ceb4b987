import type { PolicyDocument, PolicyRule } from "../src/model/policy.ts";
import type { Principal } from "../src/model/principal.ts";

/** How the same number of rules can be spread over policies. */
export type Shape = "large policies" | "shared by all" | "one per tenant" | "captures";
export const SHAPES: readonly Shape[] = ["large policies", "shared by all", "one per tenant", "captures"];

export interface Bench {
  readonly documents: readonly PolicyDocument[];
  readonly principals: readonly Principal[];
  /** A path of each rule; the caller to ask it for is `principals[i % principals.length]`. */
  readonly paths: readonly string[];
}

/**
 * `large policies`: twenty of the largest size (ten of 10 rules), a caller matches one. `shared by all`: 1,000 rules a policy (10 of 100 rules), every
 * caller matches every policy. `one per tenant`: ten rules a policy, a caller matches one. `captures`: as `shared by all`, with captures.
 */
export function makeBench(shape: Shape, rules: number, callers: number): Bench {
  const each = shape === "large policies" ? Math.min(5000, rules / 10) : shape === "one per tenant" ? 10 : rules / Math.min(100, rules / 10);
  const count = rules / each;
  const documents: PolicyDocument[] = [];
  const paths: string[] = [];
  for (let p = 0; p < count; p++) {
    documents.push({
      name: `policy-${p}`,
      principals: [principalOf(shape, p)],
      rules: Array.from({ length: each }, (_, r) => ruleOf(shape, p, r)),
      allowBroad: true,
    });
  }
  const principals = Array.from({ length: callers }, (_, i) => principal(`tenant-${i % tenants(shape, count)}`, `app-${i}`));
  for (let i = 0; i < rules; i++) {
    const caller = principals[i % callers]!;
    // Where a caller has one policy, a rule of that.
    const policy = tenants(shape, count) === count ? (i % callers) % count : i % count;
    paths.push(pathOf(shape, policy, Math.floor(i / count) % each, caller));
  }
  return { documents, principals, paths };
}

function tenants(shape: Shape, policies: number): number {
  return shape === "one per tenant" || shape === "large policies" ? policies : 100;
}

function principalOf(shape: Shape, policy: number): string {
  if (shape === "one per tenant" || shape === "large policies") return `spiffe://acme.test/ns/tenant-${policy}/sa/*`;
  return shape === "captures" ? "spiffe://acme.test/ns/{ns}/sa/*" : "spiffe://acme.test/ns/*/sa/app-*";
}

/** Every tenth rule denies something, every tenth has a wildcard. */
function ruleOf(shape: Shape, policy: number, rule: number): PolicyRule {
  const middle = shape === "captures" ? "{ns}" : `tenant-${policy}`;
  const path = `secrets/${middle}/app-${policy}-${rule}${rule % 10 === 1 ? "/*/config" : "/config"}`;
  return { paths: [path], allow: ["read", "list"], deny: rule % 10 === 2 ? ["write"] : [] };
}

function pathOf(shape: Shape, policy: number, rule: number, caller: Principal): string {
  const middle = shape === "captures" ? caller.segments[1]! : `tenant-${policy}`;
  return `secrets/${middle}/app-${policy}-${rule}${rule % 10 === 1 ? "/x/config" : "/config"}`;
}

function principal(tenant: string, app: string): Principal {
  const segments = ["ns", tenant, "sa", app];
  return { id: `spiffe://acme.test/${segments.join("/")}`, trustDomain: "acme.test", segments };
}
