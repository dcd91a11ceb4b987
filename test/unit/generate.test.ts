import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { newLoginSuffix, newPassword } from "../../src/engines/generate.ts";
import { isUsernameTemplate, loginName } from "../../src/engines/names.ts";

const count = (text: string, of: RegExp): number => text.match(of)?.length ?? 0;

describe("passwords", () => {
  it("are 32 characters of [A-Za-z0-9] unless a policy says otherwise", () => {
    for (let i = 0; i < 100; i++) expect(newPassword().revealText()).toMatch(/^[A-Za-z0-9]{32}$/);
  });

  it("fit their policy, whatever it is", () => {
    const policies = fc.integer({ min: 22, max: 128 }).chain((length) =>
      fc.record({
        length: fc.constant(length),
        minUpper: fc.integer({ min: 0, max: Math.floor(length / 4) }),
        minLower: fc.integer({ min: 0, max: Math.floor(length / 4) }),
        minDigits: fc.integer({ min: 0, max: Math.floor(length / 8) }),
        minSymbols: fc.integer({ min: 0, max: Math.floor(length / 16) }),
      }),
    );
    fc.assert(
      fc.property(policies, (policy) => {
        const password = newPassword(policy).revealText();
        expect(password).toMatch(policy.minSymbols > 0 ? /^[A-Za-z0-9._~-]+$/ : /^[A-Za-z0-9]+$/);
        expect(password).toHaveLength(policy.length);
        expect(count(password, /[A-Z]/g)).toBeGreaterThanOrEqual(policy.minUpper);
        expect(count(password, /[a-z]/g)).toBeGreaterThanOrEqual(policy.minLower);
        expect(count(password, /[0-9]/g)).toBeGreaterThanOrEqual(policy.minDigits);
        expect(count(password, /[._~-]/g)).toBeGreaterThanOrEqual(policy.minSymbols);
      }),
    );
  });

  it("never come twice", () => {
    const made = Array.from({ length: 2000 }, () => newPassword().revealText());
    expect(new Set(made).size).toBe(made.length);
  });
});

describe("login names", () => {
  const options = fc.record({
    maxBytes: fc.integer({ min: 32, max: 63 }),
    template: fc.option(fc.constantFrom("{{role}}", "{{principal}}_{{role}}", "app_{{unix_time}}", "x"), { nil: undefined }),
    principal: fc.constantFrom("spiffe://acme.test/ns/payments/sa/Api-Server", "spiffe://acme.test/x", `spiffe://acme.test/${"é".repeat(50)}`, ""),
  });

  it("fit the target and end with their random part, whatever template and principal say", () => {
    fc.assert(
      fc.property(options, fc.string({ maxLength: 200 }), (more, path) => {
        const suffix = newLoginSuffix();
        const name = loginName("prod", `credentials/postgres/${path}`, suffix, more);
        expect(name).toMatch(/^lh_prod_[a-z0-9_]+$/);
        expect(Buffer.byteLength(name)).toBeLessThanOrEqual(more.maxBytes);
        expect(name.endsWith(suffix)).toBe(true);
      }),
    );
  });

  it("show what the template speaks of", () => {
    const principal = "spiffe://acme.test/ns/payments/sa/Api-Server";
    expect(loginName("prod", "credentials/postgres/payments/ro", "abcdefgh1234", { template: "{{principal}}_{{role}}", principal })).toBe(
      "lh_prod_api_server_payments_ro_abcdefgh1234",
    );
  });

  it("take no template with anything else in it", () => {
    for (const template of ["", "{{password}}", "{{role}", "a b", "a-b", "É", "{{ role }}", "a".repeat(129)])
      expect(isUsernameTemplate(template), template).toBe(false);
    for (const template of ["x", "{{role}}", "app_{{principal}}_{{unix_time}}"]) expect(isUsernameTemplate(template), template).toBe(true);
  });
});
