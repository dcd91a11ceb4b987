import { describe, expect, test } from "vitest";
import type { PolicyDocument, PolicyRule } from "../../src/model/policy.ts";
import { checkPolicy } from "../../src/policy/check.ts";
import { runNow } from "../../src/policy/slices.ts";

const rule = (path: string, more: Partial<PolicyRule> = {}): PolicyRule => ({ paths: [path], allow: ["read"], deny: [], ...more });
const policy = (more: Partial<PolicyDocument> = {}): PolicyDocument => ({
  name: "p",
  principals: ["spiffe://acme.test/ns/{ns}/sa/payments-*"],
  rules: [rule("secrets/{ns}/**")],
  allowBroad: false,
  ...more,
});
const fields = (document: PolicyDocument): string[] => runNow(checkPolicy(document)).map((violation) => violation.field);
const withPath = (path: string): string[] => fields(policy({ rules: [rule(path)] }));
const withPrincipal = (principal: string): string[] => fields(policy({ principals: [principal], rules: [rule("secrets/a/b")] }));
const withCondition = (when: string): string | undefined => runNow(checkPolicy(policy({ rules: [rule("secrets/a/b", { when })] })))[0]?.description;

describe("checking a policy", () => {
  test("the example of the API is valid", () => {
    const rules = [
      rule("secrets/{ns}/**", { allow: ["read", "describe", "list", "watch"] }),
      rule("credentials/postgres/{ns}/ro", { allow: ["issue"], when: 'request.ttl <= duration("1h")' }),
      rule("secrets/{ns}/root/**", { allow: [], deny: ["*"] }),
    ];
    expect(fields(policy({ rules }))).toEqual([]);
  });

  test("all problems are told at once, each with its field", () => {
    const document = policy({
      name: "a/b",
      principals: ["spiffe://acme.test/ns/{ns}/sa/x", "http://x"],
      rules: [
        rule("secrets/{ns}/**"),
        { paths: ["nowhere/x", "secrets/{zz}/x"], allow: ["raed" as "read"], deny: [], when: "1" },
        { paths: [], allow: [], deny: [] },
      ],
    });
    expect(fields(document)).toEqual([
      "name",
      "principals[1]",
      "rules[1].allow[0]",
      "rules[1].paths[0]",
      "rules[1].paths[1]",
      "rules[1].when",
      "rules[2].paths",
      "rules[2]",
    ]);
  });

  test("no description repeats what was written", () => {
    const document = policy({ principals: ["spiffe://MARKER/x"], rules: [rule("secrets/MARKER!/x", { when: "MARKER.x(", allow: ["MARKER" as "read"] })] });
    expect(JSON.stringify(runNow(checkPolicy(document)))).not.toContain("MARKER");
  });

  test("limits hold before work is done on what is beyond them", () => {
    expect(fields(policy({ rules: Array.from({ length: 5001 }, () => rule("secrets/a/b")) }))).toContain("rules");
    expect(
      fields(policy({ rules: Array.from({ length: 6 }, () => ({ ...rule("secrets/a/b"), paths: Array.from({ length: 1000 }, () => "secrets/a") })) })),
    ).toContain("rules");
    expect(fields(policy({ rules: Array.from({ length: 1001 }, () => rule("secrets/a/b", { when: "true" })) }))).toEqual(["rules"]);
    expect(fields(policy({ principals: Array.from({ length: 1001 }, (_, i) => `spiffe://acme.test/${i}`), rules: [rule("secrets/a/b")] }))).toEqual([
      "principals",
    ]);
    expect(withPath(`secrets/${"a".repeat(512)}`)).toEqual(["rules[0].paths[0]"]);
    expect(withPath(`secrets/x/${Array.from({ length: 9 }, () => "*").join("/")}`)).toEqual(["rules[0].paths[0]"]);
  });
});

describe("finding 21: captures leak across tenants", () => {
  test("a capture is one whole segment: nothing stands beside it, in paths and in principals", () => {
    for (const path of [
      "secrets/{ns}-*/**",
      "secrets/{ns}-ro",
      "secrets/x{ns}",
      "secrets/{ns}{ns}",
      "secrets/{ns",
      "secrets/{}",
      "secrets/{NS}",
      "secrets/{ns*}",
    ]) {
      expect([path, ...withPath(path)]).toEqual([path, "rules[0].paths[0]"]);
    }
    expect(withPrincipal("spiffe://acme.test/ns/{ns}-{env}")).toEqual(["principals[0]"]);
    expect(withPrincipal("spiffe://acme.test/ns/{ns}-x")).toEqual(["principals[0]"]);
  });

  test("the trust domain is a literal in lower case", () => {
    for (const domain of ["{td}", "*", "**", "acme.*", "Acme.test", "", "acme.test:8443", "a@b"])
      expect([domain, ...withPrincipal(`spiffe://${domain}/a`)]).toEqual([domain, "principals[0]"]);
    expect(withPrincipal("spiffe://acme.test/a")).toEqual([]);
  });

  test("a capture that not every principal binds is refused", () => {
    expect(withPath("secrets/{other}/x")).toEqual(["rules[0].paths[0]"]);
    const principals = ["spiffe://acme.test/ns/{ns}/sa/a", "spiffe://acme.test/admin"];
    expect(fields(policy({ principals }))).toEqual(["rules[0].paths[0]"]);
    expect(withPrincipal("spiffe://acme.test/{ns}/{ns}")).toEqual(["principals[0]"]);
  });
});

describe("patterns", () => {
  test("lesson 47: what is not canonical is refused, never repaired", () => {
    for (const path of [
      "secrets//a",
      "secrets/../a",
      "secrets/./a",
      "secrets/a/",
      "/secrets/a",
      "secrets/%61",
      "secrets/a\0",
      "secrets/ä",
      "secrets",
      "SECRETS/a",
      "secrets/a b",
      "*/a",
      "**",
    ]) {
      expect([path, ...withPath(path)]).toEqual([path, "rules[0].paths[0]"]);
    }
    for (const id of [
      "spiffe://acme.test",
      "spiffe://acme.test/",
      "spiffe://acme.test/a//b",
      "spiffe://acme.test/../b",
      "SPIFFE://acme.test/a",
      "spiffe://acme.test/a/",
    ]) {
      expect([id, ...withPrincipal(id)]).toEqual([id, "principals[0]"]);
    }
  });

  test("** stands last, alone in its segment", () => {
    for (const path of ["secrets/**/a", "secrets/a**", "secrets/x/**b"]) expect([path, ...withPath(path)]).toEqual([path, "rules[0].paths[0]"]);
    expect(withPath("secrets/a/**")).toEqual([]);
  });

  test("a wildcard principal with a wildcard path needs allow_broad", () => {
    const broad = (principal: string, path: string, more: Partial<PolicyDocument> = {}) =>
      fields(policy({ principals: [principal], rules: [rule(path)], ...more }));
    for (const path of ["secrets/**", "secrets/*/x", "credentials/postgres/**", "credentials/*/a", "rotations/secrets/**"]) {
      for (const principal of ["spiffe://acme.test/**", "spiffe://acme.test/ns/*/sa/a", "spiffe://acme.test/ns/{ns}", "spiffe://acme.test/ns/pay-*"]) {
        expect([principal, path, ...broad(principal, path)]).toEqual([principal, path, "rules[0].paths[0]"]);
        expect(broad(principal, path, { allowBroad: true })).toEqual([]);
      }
      expect(broad("spiffe://acme.test/ns/admin", path)).toEqual([]);
    }
    expect(broad("spiffe://acme.test/**", "secrets/public/**")).toEqual([]);
    expect(broad("spiffe://acme.test/**", "secrets/**", { rules: [rule("secrets/**", { allow: [], deny: ["*"] })] })).toEqual([]);
  });
});

describe("finding 14: conditions are checked when they are written", () => {
  test("the type must be bool", () => {
    for (const when of ["1", "request.path", "request.ttl", 'principal.captures["ns"]', "dyn(true)", "request"])
      expect([when, withCondition(when)]).toEqual([when, "must be of type bool"]);
    for (const when of [
      "true",
      "request.version > 3",
      '"x" in principal.captures',
      'has(request.ttl) && request.ttl <= duration("1h")',
      'now < timestamp("2030-01-01T00:00:00Z")',
    ]) {
      expect([when, withCondition(when)]).toEqual([when, undefined]);
    }
  });

  test("misspelt fields, wrong types and unknown functions are found", () => {
    for (const when of [
      "request.tll <= duration('1h')",
      "request.ttl <= 3600",
      "request.ttl == 3600",
      "secret.x == 1",
      "f(1)",
      "request.path && true",
      "now.x == 1",
    ]) {
      expect([when, withCondition(when)]).toEqual([when, expect.stringMatching(/^does not check: /)]);
    }
  });

  test("no loop in a loop, and none over another's result: 252 characters of them held the event loop for 15 s", () => {
    const nested = "principal.segments.all(a, principal.segments.all(b, principal.segments.all(c, a == b)))";
    expect(withCondition(nested)).toMatch(/a loop within a loop/);
    expect(withCondition(`["a"]${".map(x, x + x)".repeat(8)}.size() > 0`)).toMatch(/a loop/);
    expect(withCondition('["a"].map(x, x + x).map(x, x + x).size() > 0')).toMatch(/a loop/);
    expect(withCondition("principal.segments.exists(s, s == 'a')")).toBeUndefined();
  });

  test("text, nodes, nesting, lists and regular expressions have limits", () => {
    expect(withCondition(`"${"a".repeat(4096)}" == "a"`)).toMatch(/4096 bytes/);
    expect(withCondition(`"${"é".repeat(2048)}" == "a"`)).toMatch(/4096 bytes/);
    expect(withCondition(`true${" || true".repeat(110)}`)).toMatch(/200 nodes/);
    expect(withCondition(`true${" || true".repeat(400)}`)).toMatch(/600 tokens/);
    expect(withCondition(`${"(".repeat(33)}true${")".repeat(33)}`)).toMatch(/nested deeper/);
    expect(withCondition(`1 in [${Array.from({ length: 101 }, () => "1").join()}]`)).toMatch(/100 elements/);
    expect(withCondition('request.path.matches("(a{100}){10}")')).toMatch(/counted repetition/);
    expect(withCondition("request.path.matches(principal.id)")).toMatch(/not written out/);
    expect(withCondition("principal.segments.all(s, s.matches('a'))")).toMatch(/too costly/);
    expect(withCondition('request.path.matches("^secrets/[a-z]+$")')).toBeUndefined();
  });
});
