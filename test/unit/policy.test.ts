import { describe, expect, test } from "vitest";
import { CAPABILITIES } from "../../src/model/capability.ts";
import type { PolicyDocument, PolicyRule } from "../../src/model/policy.ts";
import type { Principal } from "../../src/model/principal.ts";
import type { PolicySnapshot } from "../../src/policy/snapshot.ts";
import { createPolicyStore } from "../../src/policy/store.ts";

const who = (...segments: string[]): Principal => ({ id: `spiffe://acme.test/${segments.join("/")}`, trustDomain: "acme.test", segments });
const app = who("ns", "payments", "sa", "app");
const rule = (path: string, more: Partial<PolicyRule> = {}): PolicyRule => ({ paths: [path], allow: ["read"], deny: [], ...more });
const policy = (rules: readonly PolicyRule[], principal = "spiffe://acme.test/ns/{ns}/sa/*", name = "p"): PolicyDocument => ({
  name,
  principals: [principal],
  rules,
  allowBroad: true,
});
const engine = (...put: PolicyDocument[]): Promise<PolicySnapshot> => createPolicyStore(() => 0).apply({ revision: 1, put });
const TTL = 'request.ttl <= duration("1h")';

describe("decisions", () => {
  test("nothing is allowed that no rule allows", async () => {
    expect(createPolicyStore().current.decide(app, "read", "secrets/a/b")).toBe("none");
    const snapshot = await engine(policy([rule("secrets/{ns}/**")]));
    expect(snapshot.decide(app, "read", "secrets/payments/x")).toBe("allow");
    expect(snapshot.decide(app, "write", "secrets/payments/x")).toBe("none");
    expect(snapshot.decide(app, "read", "secrets/other/x")).toBe("none");
    expect(snapshot.decide({ ...app, id: "spiffe://b.test/ns/payments/sa/app", trustDomain: "b.test" }, "read", "secrets/payments/x")).toBe("none");
    expect(snapshot.decide(app, "raed" as "read", "secrets/payments/x")).toBe("none");
  });

  test("* is one segment, ** one or more, a glob stays in its segment", async () => {
    const snapshot = await engine(policy([rule("secrets/a/*"), rule("secrets/b/**"), rule("secrets/c/pay-*-x")]));
    const allowed = (path: string): boolean => snapshot.decide(app, "read", path) === "allow";
    expect(["secrets/a/1", "secrets/b/1", "secrets/b/1/2", "secrets/c/pay-1-x", "secrets/c/pay--x"].map(allowed)).toEqual([true, true, true, true, true]);
    expect(["secrets/a", "secrets/a/1/2", "secrets/b", "secrets/c/pay-x", "secrets/c/pay-1/2-x", "secrets/c/apay-1-x"].map(allowed)).toEqual([
      false,
      false,
      false,
      false,
      false,
      false,
    ]);
  });

  test("lesson 44: a broad deny beats the narrowest allow, in whatever policy", async () => {
    const snapshot = await engine(
      policy([rule("secrets/a/b/c")], "spiffe://acme.test/ns/payments/sa/app", "narrow"),
      policy([rule("secrets/**", { allow: [], deny: ["read"] })], "spiffe://acme.test/**", "broad"),
    );
    expect(snapshot.decide(app, "read", "secrets/a/b/c")).toBe("deny");
  });

  test("lesson 46: a deny of * denies every capability, and every capability can be denied alone", async () => {
    for (const capability of CAPABILITIES) {
      const one = await engine(policy([rule("secrets/a/**", { allow: ["*"], deny: [capability] })]));
      for (const each of CAPABILITIES) expect(one.decide(app, each, "secrets/a/x")).toBe(each === capability ? "deny" : "allow");
    }
    const all = await engine(policy([rule("secrets/a/**", { allow: ["*"], deny: ["*"] })]));
    for (const each of CAPABILITIES) expect(all.decide(app, each, "secrets/a/x")).toBe("deny");
  });

  test("lesson 46: patterns match segments, not the joined text", async () => {
    const snapshot = await engine(policy([rule("secrets/a*/c"), rule("secrets/x/*")]));
    expect(snapshot.decide(app, "read", "secrets/a/b/c")).toBe("none");
    expect(snapshot.decide(app, "read", "secrets/X/a")).toBe("none");
  });

  test("lesson 47: a path that is not canonical matches nothing that a canonical one would", async () => {
    const snapshot = await engine(policy([rule("secrets/a/b", { allow: ["*"] })]));
    for (const path of ["secrets//a/b", "secrets/x/../a/b", "secrets/a/b/", "/secrets/a/b", "secrets/a/b\0", "secrets/%61/b", ""])
      expect([path, snapshot.decide(app, "read", path)]).toEqual([path, "none"]);
  });

  test("finding 15: a deny on a secret's path says nothing of rotations/<path>, so both are asked; a role path decides for its leases", async () => {
    const snapshot = await engine(
      policy([
        rule("rotations/secrets/{ns}/**", { allow: ["rotate"] }),
        rule("secrets/{ns}/**", { allow: ["rotate"] }),
        rule("secrets/{ns}/root/**", { allow: [], deny: ["*"] }),
      ]),
    );
    const may = (path: string): boolean => [`rotations/${path}`, path].every((each) => snapshot.decide(app, "rotate", each) === "allow");
    expect(snapshot.decide(app, "rotate", "rotations/secrets/payments/root/x")).toBe("allow");
    expect(may("secrets/payments/root/x")).toBe(false);
    expect(may("secrets/payments/x")).toBe(true);
  });

  test("finding 21: a capture's value is a literal, never a pattern", async () => {
    const snapshot = await engine(policy([rule("secrets/{ns}/**")]));
    expect(snapshot.decide(app, "read", "secrets/payments-eu/x")).toBe("none");
    // No verified certificate carries these, and if one did:
    expect(snapshot.decide(who("ns", "*", "sa", "app"), "read", "secrets/payments/x")).toBe("none");
    expect(snapshot.decide(who("ns", "**", "sa", "app"), "read", "secrets/payments/x")).toBe("none");
    expect(snapshot.decide(who("ns", "pay*", "sa", "app"), "read", "secrets/payments/x")).toBe("none");
  });
});

describe("conditions", () => {
  test("finding 14: an erroring condition never allows, although the library returns errors as truthy values", async () => {
    const snapshot = await engine(policy([rule("credentials/postgres/{ns}/ro", { allow: ["issue", "read"], when: TTL })]));
    const decide = (ttlMs?: number) => snapshot.decide(app, "issue", "credentials/postgres/payments/ro", { ttlMs });
    expect(decide(3_600_000)).toBe("allow");
    expect(decide(3_600_001)).toBe("none");
    expect(decide(undefined)).toBe("none");
    expect(snapshot.decide(app, "read", "credentials/postgres/payments/ro")).toBe("none");
  });

  test("lesson 45: an erroring condition on a deny denies", async () => {
    const snapshot = await engine(policy([rule("secrets/a/b"), rule("secrets/a/b", { allow: [], deny: ["read"], when: 'request.ttl > duration("1h")' })]));
    const decide = (ttlMs?: number) => snapshot.decide(app, "read", "secrets/a/b", { ttlMs });
    expect(decide(undefined)).toBe("deny");
    expect(decide(7_200_000)).toBe("deny");
    expect(decide(60_000)).toBe("allow");
  });

  test("a stored condition that can't be read is an error like any other", async () => {
    expect((await engine(policy([rule("secrets/a/b", { when: "((" })]))).decide(app, "read", "secrets/a/b")).toBe("none");
    expect((await engine(policy([rule("secrets/a/b", { allow: ["read"], deny: ["read"], when: "((" })]))).decide(app, "read", "secrets/a/b")).toBe("deny");
  });

  test("one erroring allow does not stand in the way of another", async () => {
    const snapshot = await engine(policy([rule("secrets/a/b", { when: TTL }), rule("secrets/a/*", { when: "true" })]));
    expect(snapshot.decide(app, "read", "secrets/a/b")).toBe("allow");
  });

  test("conditions see the request, the principal with its captures, and the time", async () => {
    const true_ = async (when: string): Promise<boolean> =>
      (await engine(policy([rule("secrets/a/b", { when })]))).decide(app, "read", "secrets/a/b", {
        ttlMs: 1500,
        method: "SecretService/GetSecret",
        version: 3,
      }) === "allow";
    for (const when of [
      'request.path == "secrets/a/b" && request.capability == "read" && request.method == "SecretService/GetSecret" && request.version == 3',
      'request.ttl == duration("1.5s")',
      'principal.id == "spiffe://acme.test/ns/payments/sa/app" && principal.trust_domain == "acme.test" && principal.segments[3] == "app"',
      'principal.captures.ns == "payments" && principal.captures.size() == 1',
      'now == timestamp("1970-01-01T00:00:00Z")',
    ]) {
      expect([when, await true_(when)]).toEqual([when, true]);
    }
    expect(await true_('principal.captures.other == "x" || false')).toBe(false);
  });
});

describe("what else is asked", () => {
  test("allowed prefixes are bounded: more become the folder above them", async () => {
    const few = await engine(
      policy([rule("secrets/{ns}/**"), rule("secrets/a/b/c"), rule("secrets/a/x-*/y"), rule("credentials/postgres/a", { allow: ["issue"] })]),
    );
    expect(few.allowedPrefixes(app, "read")).toEqual([
      { prefix: "secrets/a/", exact: false },
      { prefix: "secrets/payments/", exact: false },
    ]);
    expect(few.allowedPrefixes(app, "issue")).toEqual([{ prefix: "credentials/postgres/a", exact: true }]);
    expect(few.allowedPrefixes(app, "operate")).toEqual([]);
    expect(few.allowedPrefixes(who("x"), "read")).toEqual([]);
    const many = await engine(policy(Array.from({ length: 1000 }, (_, i) => rule(`secrets/a/s${i}/x`))));
    expect(many.allowedPrefixes(app, "read")).toEqual([{ prefix: "secrets/a/", exact: false }]);
  });

  test("a folder is allowed only whole: by an unconditional **, without any deny in it", async () => {
    const folder = async (...rules: PolicyRule[]) => (await engine(policy(rules))).allowsFolder(app, "read", "policies/");
    expect(await folder(rule("policies/**"))).toBe(true);
    expect(await folder(rule("policies/*"))).toBe(false);
    expect(await folder(rule("policies/**", { when: "true" }))).toBe(false);
    expect(await folder(rule("policies/**"), rule("policies/x/y", { allow: [], deny: ["read"] }))).toBe(false);
    expect(await folder(rule("policies/**"), rule("policies/*", { allow: [], deny: ["read"], when: "false" }))).toBe(false);
    expect(await folder(rule("policies/**"), rule("policies/x", { allow: [], deny: ["write"] }))).toBe(true);
  });

  test("explain names the deciding rule, or the nearest and what it lacked", async () => {
    const snapshot = await engine(
      policy([
        rule("secrets/{ns}/**"),
        rule("secrets/{ns}/root/**", { allow: [], deny: ["*"] }),
        rule("credentials/postgres/{ns}/ro", { allow: ["issue"], when: TTL }),
      ]),
      policy([rule("secrets/admin/x")], "spiffe://acme.test/admin", "others"),
    );
    expect(snapshot.explain(app, "read", "secrets/payments/x").decidingRule).toMatchObject({
      policy: "p",
      ruleIndex: 0,
      effect: "allow",
      path: "secrets/{ns}/**",
    });
    expect(snapshot.explain(app, "read", "secrets/payments/root/x").decidingRule).toMatchObject({ ruleIndex: 1, effect: "deny" });
    expect(snapshot.explain(app, "issue", "credentials/postgres/payments/ro").nearestRules[0]).toMatchObject({
      ruleIndex: 2,
      condition: "error",
      lacked: { kind: "condition" },
    });
    expect(snapshot.explain(app, "issue", "credentials/postgres/payments/ro", { ttlMs: 1e9 }).nearestRules[0]).toMatchObject({ condition: "false" });
    expect(snapshot.explain(app, "write", "secrets/payments/x").nearestRules[0]).toMatchObject({ ruleIndex: 0, lacked: { kind: "capability" } });
    expect(snapshot.explain(app, "issue", "credentials/postgres/payments/rw").nearestRules[0]).toMatchObject({
      ruleIndex: 2,
      lacked: { kind: "path", segment: 3 },
    });
    expect(snapshot.explain(app, "read", "secrets/admin/x").nearestRules).toContainEqual(
      expect.objectContaining({ policy: "others", lacked: { kind: "principal" } }),
    );
    expect(snapshot.explain(app, "read", "secrets/payments/x").nearestRules).toEqual([]);
  });
});

describe("changes", () => {
  test("a change takes effect whole, and in the order of the calls", async () => {
    const store = createPolicyStore();
    const results = [
      store.apply({ revision: 1, put: [policy([rule("secrets/a/b")])] }),
      store.apply({ revision: 2, put: [policy([rule("secrets/a/c")])] }),
      store.apply({ revision: 3, remove: ["p", "unknown"] }),
    ];
    const seen = (await Promise.all(results)).map((each) => [each.revision, each.decide(app, "read", "secrets/a/b"), each.decide(app, "read", "secrets/a/c")]);
    expect(seen).toEqual([
      [1, "allow", "none"],
      [2, "none", "allow"],
      [3, "none", "none"],
    ]);
    expect(store.current.revision).toBe(3);
  });

  test("a document that can't be compiled changes nothing and is told", async () => {
    const store = createPolicyStore();
    await store.apply({ revision: 1, put: [policy([rule("secrets/a/b")])] });
    await expect(store.apply({ revision: 2, remove: ["p"], put: [policy([rule("secrets/{x}/b")], undefined, "q")] })).rejects.toMatchObject({
      reason: "INTERNAL",
    });
    expect(store.current.revision).toBe(1);
    expect(store.current.decide(app, "read", "secrets/a/b")).toBe("allow");
    await store.apply({ revision: 3, remove: ["p"] });
    expect(store.current.decide(app, "read", "secrets/a/b")).toBe("none");
  });

  test("finding 31: a large change is compiled in slices, between which the event loop turns", async () => {
    const store = createPolicyStore();
    let turns = 0;
    let applied = false;
    const turn = (): void => {
      turns++;
      if (!applied) setImmediate(turn);
    };
    setImmediate(turn);
    await store.apply({
      revision: 1,
      put: Array.from({ length: 20 }, (_, p) =>
        policy(
          Array.from({ length: 5000 }, (_, r) => rule(`secrets/t${p}/r${r}/x`)),
          undefined,
          `p${p}`,
        ),
      ),
    });
    applied = true;
    expect(turns).toBeGreaterThan(5);
    expect(store.current.decide(app, "read", "secrets/t19/r4999/x")).toBe("allow");
  });

  test("nodes with thousands of children stay right when some go and come", async () => {
    const store = createPolicyStore();
    const documents = Array.from({ length: 10 }, (_, p) =>
      policy(
        Array.from({ length: 400 }, (_, r) => rule(`secrets/a/r${r * 10 + p}`)),
        "spiffe://acme.test/**",
        `p${p}`,
      ),
    );
    await store.apply({ revision: 1, put: documents });
    const read = (i: number) => store.current.decide(app, "read", `secrets/a/r${i}`);
    read(0);
    const kept = await store.apply({ revision: 1 });
    await store.apply({ revision: 2, remove: ["p3"] });
    for (let i = 0; i < 4000; i++) expect(read(i)).toBe(i % 10 === 3 ? "none" : "allow");
    await store.apply({ revision: 3, put: [documents[3]!] });
    for (let i = 0; i < 4000; i++) expect(read(i)).toBe("allow");
    await store.apply({ revision: 4, remove: ["p4"] });
    for (let i = 0; i < 4000; i++) expect(kept.decide(app, "read", `secrets/a/r${i}`)).toBe("allow");
    expect(kept.setOf(app).needsMerge).toBe(false);
    expect(store.current.setOf(app).needsMerge).toBe(false);
  });
});
