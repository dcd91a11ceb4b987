import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { inScope } from "../../src/model/path.ts";
import type { PolicyDocument, PolicyRule } from "../../src/model/policy.ts";
import type { Principal } from "../../src/model/principal.ts";
import { checkPolicy } from "../../src/policy/check.ts";
import { MAX_WALKED } from "../../src/policy/rule-set.ts";
import { runNow } from "../../src/policy/slices.ts";
import { createPolicyStore } from "../../src/policy/store.ts";
import { type Asked, CONDITIONS, referenceDecision } from "./policy-reference.ts";

// A small alphabet, so that patterns and paths meet often.
const word = fc.constantFrom("a", "b", "ab", "a-b");
const glob = fc.constantFrom("a*", "*b", "a*b", "*-*");
const capability = fc.constantFrom("read", "write", "list");
const star = fc.constant("*");
const CAPTURES = ["{ns}", "{sa}"] as const;

const principalPattern = fc
  .record({
    steps: fc.array(fc.oneof({ weight: 3, arbitrary: word }, { weight: 1, arbitrary: fc.oneof(glob, star) }, { weight: 3, arbitrary: fc.constant("{}") }), {
      minLength: 1,
      maxLength: 2,
    }),
    deep: fc.boolean(),
  })
  .map(({ steps, deep }) => {
    let next = 0;
    const named = steps.map((step) => (step === "{}" ? (CAPTURES[next++] ?? "*") : step));
    return `spiffe://acme.test/${[...named, ...(deep ? ["**"] : [])].join("/")}`;
  });

const pathPattern = fc
  .tuple(
    fc.constantFrom("secrets", "credentials"),
    fc.array(fc.oneof({ weight: 4, arbitrary: word }, { weight: 1, arbitrary: fc.oneof(glob, star) }, { weight: 2, arbitrary: fc.constantFrom(...CAPTURES) }), {
      minLength: 1,
      maxLength: 2,
    }),
    fc.boolean(),
  )
  .map(([root, steps, deep]) => [root, ...steps, ...(deep ? ["**"] : [])].join("/"));

const rule: fc.Arbitrary<PolicyRule> = fc.record({
  paths: fc.array(pathPattern, { minLength: 1, maxLength: 2 }),
  allow: fc.uniqueArray(fc.oneof({ weight: 4, arbitrary: capability }, { weight: 1, arbitrary: star }), { minLength: 1, maxLength: 2 }),
  deny: fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: fc.array(capability, { minLength: 1, maxLength: 1 }) }),
  when: fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: fc.constantFrom(...Object.keys(CONDITIONS)) }),
});

/** Only valid documents: paths with captures that some principal does not bind lose them. */
const policy: fc.Arbitrary<PolicyDocument> = fc
  .record({ principals: fc.array(principalPattern, { minLength: 1, maxLength: 2 }), rules: fc.array(rule, { minLength: 1, maxLength: 3 }) })
  .map(({ principals, rules }) => {
    const bound = (path: string): string => path.replaceAll(/\{\w+\}/g, (name) => (principals.every((each) => each.includes(name)) ? name : "a"));
    return { name: "p", principals, rules: rules.map((each) => ({ ...each, paths: each.paths.map(bound) })), allowBroad: true };
  });

const policies = fc.array(policy, { minLength: 1, maxLength: 14 }).map((all) => all.map((each, i) => ({ ...each, name: `p${i}` })));

const principal: fc.Arbitrary<Principal> = fc.array(word, { minLength: 1, maxLength: 4 }).map((segments) => ({
  id: `spiffe://acme.test/${segments.join("/")}`,
  trustDomain: "acme.test",
  segments,
}));

const asked: fc.Arbitrary<Asked> = fc.record({
  principal,
  capability,
  path: fc.tuple(fc.constantFrom("secrets", "credentials"), fc.array(word, { minLength: 1, maxLength: 4 })).map(([root, rest]) => [root, ...rest].join("/")),
  ttlMs: fc.constantFrom(undefined, 60_000, 3_600_001),
});

const decide = (engine: ReturnType<typeof createPolicyStore>["current"], each: Asked) =>
  engine.decide(each.principal, each.capability, each.path, { ttlMs: each.ttlMs });

describe("the policy engine against a naive evaluator", () => {
  test("the generated documents are valid, so the comparison is about what users can write", () => {
    fc.assert(
      fc.property(policy, (document) => {
        expect(runNow(checkPolicy(document))).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  test("decisions, prefixes, folders and explanations agree with it, merged or not", async () => {
    const seen = { allow: 0, deny: 0, none: 0, merged: 0 };
    await fc.assert(
      fc.asyncProperty(policies, fc.array(asked, { minLength: 40, maxLength: 60 }), async (documents, questions) => {
        const store = createPolicyStore(() => 0);
        await store.apply({ revision: 1, put: documents });
        for (const merged of [false, true]) {
          for (const each of questions) {
            const expected = referenceDecision(documents, each);
            seen[expected]++;
            const set = store.current.setOf(each.principal);
            if (merged && set.variants.length > MAX_WALKED) {
              expect(set.needsMerge).toBe(false);
              seen.merged++;
            }
            expect(decide(store.current, each)).toBe(expected);
            const explanation = store.current.explain(each.principal, each.capability, each.path, { ttlMs: each.ttlMs });
            expect(explanation.decision).toBe(expected);
            expect(explanation.decidingRule?.effect ?? "none").toBe(expected);
            const scopes = store.current.allowedPrefixes(each.principal, each.capability);
            if (expected === "allow") expect(scopes.some((scope) => inScope(each.path, scope))).toBe(true);
            const folder = each.path.slice(0, each.path.lastIndexOf("/") + 1);
            if (store.current.allowsFolder(each.principal, each.capability, folder)) expect(expected).toBe("allow");
          }
          if (merged) break;
          // An empty change waits behind the merges that the first round asked for.
          await store.apply({ revision: 1 });
        }
      }),
      { numRuns: 600 },
    );
    expect(Math.min(seen.allow, seen.deny, seen.none, seen.merged)).toBeGreaterThan(500);
  }, 60_000);

  test("after any sequence of changes the engine is as if built anew", async () => {
    const change = fc.record({ slot: fc.integer({ min: 0, max: 11 }), put: fc.option(policy, { freq: 4 }) });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 40 }), fc.array(asked, { minLength: 10, maxLength: 10 }), async (changes, questions) => {
        const store = createPolicyStore(() => 0);
        const model = new Map<string, PolicyDocument>();
        for (const [i, { slot, put }] of changes.entries()) {
          const name = `p${slot}`;
          if (put === null) model.delete(name);
          else model.set(name, { ...put, name });
          await store.apply(put === null ? { revision: i, remove: [name] } : { revision: i, put: [{ ...put, name }] });
          for (const each of questions) expect(decide(store.current, each)).toBe(referenceDecision([...model.values()], each));
        }
      }),
      { numRuns: 100 },
    );
  }, 60_000);

  test("a snapshot keeps its answers while later changes are applied", async () => {
    await fc.assert(
      fc.asyncProperty(policies, policies, fc.array(asked, { minLength: 20, maxLength: 20 }), async (before, after, questions) => {
        const store = createPolicyStore(() => 0);
        const kept = await store.apply({ revision: 1, put: before });
        for (const each of questions) decide(kept, each);
        await store.apply({ revision: 2, put: after });
        for (const each of questions) expect(decide(kept, each)).toBe(referenceDecision(before, each));
      }),
      { numRuns: 100 },
    );
  }, 60_000);
});
