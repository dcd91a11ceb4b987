import { createHash, createHmac, pbkdf2Sync } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Sensitive } from "../../src/base/sensitive.ts";
import { newLoginSuffix, newPassword } from "../../src/engines/generate.ts";
import { isInstance, loginName } from "../../src/engines/names.ts";
import { bootstrapSql, BOOTSTRAP_VERSION } from "../../src/engines/postgres/bootstrap.ts";
import { checkRoleConfig, checkTargetConfig, type PostgresRoleConfig, type PostgresTargetConfig } from "../../src/engines/postgres/config.ts";
import { quoteArray, quoteLiteral } from "../../src/engines/postgres/quote.ts";
import { scramVerifier } from "../../src/engines/postgres/scram.ts";
import { engineByName } from "../../src/engines/registry.ts";

describe("names", () => {
  test("a login's name is a plain identifier of at most 63 bytes, for any role path", () => {
    expect(loginName("dev", "credentials/postgres/payments/ro", "abcdefgh")).toBe("lh_dev_payments_ro_abcdefgh");
    expect(loginName("dev", "credentials/postgres/--", "abcdefgh")).toBe("lh_dev_role_abcdefgh");
    fc.assert(
      fc.property(fc.stringMatching(/^[A-Za-z0-9._-]{1,200}$/), fc.stringMatching(/^[a-z0-9]{1,16}$/), (segment, instance) => {
        fc.pre(isInstance(instance));
        const name = loginName(instance, `credentials/postgres/${segment}`, newLoginSuffix());
        expect(name).toMatch(new RegExp(`^lh_${instance}_[a-z0-9_]+$`));
        expect(Buffer.byteLength(name)).toBeLessThanOrEqual(63);
      }),
    );
  });

  test("no instance's prefix begins another's, and the witness's is kept", () => {
    for (const bad of ["", "a_b", "A", "a-b", "w", "x".repeat(17)]) expect(isInstance(bad)).toBe(false);
    expect(() => loginName("a_b", "credentials/postgres/x", "abcdefgh")).toThrow(RangeError);
    expect(() => loginName("a", "credentials/postgres/x", "short")).toThrow(RangeError);
  });
});

test("lesson 20: passwords hold letters and digits alone, evenly, with far more than 128 bits", () => {
  const all = Array.from({ length: 500 }, () => newPassword().revealText());
  expect(new Set(all).size).toBe(500);
  for (const one of all) expect(one).toMatch(/^[A-Za-z0-9]{32}$/);
  expect(new Set(all.join("")).size).toBe(62);
});

describe("SCRAM verifier", () => {
  test("proves the client of RFC 7677's example", async () => {
    const verifier = await scramVerifier(Sensitive.text("pencil"), 4096, Buffer.from("W22ZaJ0SNY7soEsUEjb6gQ==", "base64"));
    const [, stored, server] = /^SCRAM-SHA-256\$4096:W22ZaJ0SNY7soEsUEjb6gQ==\$([^:]+):(.+)$/.exec(verifier)!;
    const auth =
      "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const proof = Buffer.from("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "base64");
    const signature = createHmac("sha256", Buffer.from(stored!, "base64")).update(auth).digest();
    const clientKey = proof.map((byte, index) => byte ^ signature[index]!);
    expect(createHash("sha256").update(clientKey).digest("base64")).toBe(stored);
    expect(createHmac("sha256", Buffer.from(server!, "base64")).update(auth).digest("base64")).toBe("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
  });

  test("salts are fresh and iterations as asked", async () => {
    const password = newPassword();
    const [one, two] = await Promise.all([scramVerifier(password, 1), scramVerifier(password, 1)]);
    expect(one).not.toBe(two);
    const salt = Buffer.from(/:([^$]+)\$/.exec(one)![1]!, "base64");
    const key = createHmac("sha256", pbkdf2Sync(password.reveal(), salt, 1, 32, "sha256"))
      .update("Server Key")
      .digest("base64");
    expect(one.endsWith(`:${key}`)).toBe(true);
  });
});

describe("configuration", () => {
  const target: PostgresTargetConfig = { host: "db.acme.test", port: 5432, database: "app", username: "leasehold", tls: { mode: "verify-full" } };
  const role: PostgresRoleConfig = { database: "app", memberOf: ["ro"], scramIterations: 4096, ownedObjects: { kind: "refuse" } };
  const fields = (violations: readonly { readonly field: string }[]): string[] => violations.map((violation) => violation.field);

  test("good ones pass", () => {
    expect(checkTargetConfig(target)).toEqual([]);
    expect(checkTargetConfig({ ...target, host: "::1", tls: { mode: "disable" } })).toEqual([]);
    expect(checkRoleConfig({ ...role, connectionLimit: 5, ownedObjects: { kind: "reassign_to", role: "ro" } })).toEqual([]);
  });

  test.each([
    [{ host: "" }, "host"],
    [{ host: "/var/run/postgresql" }, "host"],
    [{ host: "db/../x" }, "host"],
    [{ host: "user:pw@db" }, "host"],
    [{ port: 0 }, "port"],
    [{ port: 1.5 }, "port"],
    [{ database: "a\0b" }, "database"],
    [{ username: "x".repeat(64) }, "username"],
    [{ tls: { mode: "disable", caPem: "x" } as const }, "tls.mode"],
    [{ tls: { mode: "verify-full", caPem: "x", caFile: "y" } as const }, "tls.ca_pem"],
  ])("a bad target %j names %s", (change, field) => {
    expect(fields(checkTargetConfig({ ...target, ...change }))).toEqual([field]);
  });

  test.each<[Partial<PostgresRoleConfig>, string]>([
    [{ scramIterations: 0 }, "scram_iterations"],
    [{ scramIterations: 100_001 }, "scram_iterations"],
    [{ memberOf: ["a", "a"] }, "member_of[1]"],
    [{ memberOf: [""] }, "member_of[0]"],
    [{ connectionLimit: 0 }, "connection_limit"],
    [{ ownedObjects: { kind: "reassign_to", role: "admin" } }, "owned_objects.reassign_to"], // finding 6
  ])("a bad role %j names %s", (change, field) => {
    expect(fields(checkRoleConfig({ ...role, ...change }))).toEqual([field]);
  });
});

test("lesson 19: literals of the bootstrap are quoted by us", () => {
  expect(quoteLiteral("it's $$; -- \\")).toBe("'it''s $$; -- \\'");
  expect(quoteArray(["a'", "b"])).toBe("ARRAY['a''', 'b']::text[]");
  expect(() => quoteLiteral("a\0")).toThrow(RangeError);
});

test("the bootstrap script carries its own version, every file, and no password", async () => {
  const password = newPassword();
  const sql = bootstrapSql({ instance: "dev", login: "b", verifier: await scramVerifier(password, 1), allowedGroups: [] });
  expect(sql).toContain(`AS 'SELECT ${BOOTSTRAP_VERSION}'`);
  expect(sql).not.toContain(password.revealText());
  expect(() => bootstrapSql({ instance: "a_b", login: "b", verifier: undefined, allowedGroups: undefined })).toThrow(RangeError);
});

test("engines are found by name", () => {
  expect(engineByName("postgres")?.abilities.fencing).toBe(true);
  expect(engineByName("oracle")).toBeUndefined();
});
