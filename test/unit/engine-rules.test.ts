import { describe, expect, it } from "vitest";
import { checkRoleConfig as checkMysqlRole } from "../../src/engines/mysql/config.ts";
import { quoteAccount, quoteGrantedSchema, quoteIdentifier, quoteLiteral } from "../../src/engines/mysql/quote.ts";
import { loginName } from "../../src/engines/names.ts";
import { checkRoleConfig as checkRedisRole } from "../../src/engines/redis/config.ts";

describe("redis rules", () => {
  const fields = (...rules: string[]): string[] => checkRedisRole({ rules }).map((violation) => violation.field);

  it("allows keys, channels, categories and commands", () => {
    expect(
      fields("~app:*", "%R~shared:*", "%RW~x", "&chan.*", "~*", "+@read", "+@pubsub", "+get", "+client|setname", "-@dangerous", "-del", "+@stream"),
    ).toEqual([]);
    expect(fields("+@all", "-@admin", "-@dangerous", "+keys")).toEqual([]);
  });

  it.each([
    ">pw",
    "<pw",
    `#${"a".repeat(64)}`,
    "!x",
    "nopass",
    "on",
    "off",
    "reset",
    "resetpass",
    "resetkeys",
    "allkeys",
    "allcommands",
    "allchannels",
    "(+get ~x)",
    "",
    "~",
    "&",
    "~a b",
    "~a\n",
    "+get +acl",
    "+ACL",
    "+acl",
    "+acl|setuser",
    "+@admin",
    "+@dangerous",
    "+@ALL",
    "+config",
    "+config|get",
    "+debug",
    "+module",
    "+shutdown",
    "+client",
    "+client|kill",
    "+client|no-evict",
    "+flushall",
    "+replicaof",
    "+monitor",
    "+auth",
    "~leasehold:*",
    "%W~leasehold:{x}:fence:y",
    "sanitize-payload",
    "skip-sanitize-payload",
  ])("refuses %j", (rule) => {
    expect(fields(rule)).toEqual(["rules[0]"]);
  });

  it("wants a broad category cut down by what follows it", () => {
    expect(fields("+@all")).toEqual(["rules[0]"]);
    expect(fields("-@admin", "-@dangerous", "+@all")).toEqual(["rules[2]"]);
    expect(fields("+@all", "-@admin")).toEqual(["rules[0]"]);
    expect(fields("+@all", "-@admin", "-@dangerous", "+@write")).toEqual(["rules[3]"]);
    expect(fields()).toEqual(["rules"]);
  });
});

describe("mysql", () => {
  it("quotes what can be quoted, and refuses what could mean anything else", () => {
    expect(quoteLiteral("a'b")).toBe("'a''b'");
    expect(quoteIdentifier("a`b")).toBe("`a``b`");
    expect(quoteAccount("lh_x", "10.0.%")).toBe("'lh_x'@'10.0.%'");
    expect(quoteGrantedSchema("app_a%")).toBe(String.raw`${"`"}app\_a\%${"`"}`);
    for (const bad of ["a\\b", "a\0", "a\n", "\ud800"]) expect(() => quoteLiteral(bad)).toThrow(RangeError);
    for (const bad of ["", "a\0", "x".repeat(65)]) expect(() => quoteIdentifier(bad)).toThrow(RangeError);
  });

  it("grants only what is on the list, and nothing on the server's own schemas", () => {
    const fields = (privilege: string, schema = "app", table?: string): string[] =>
      checkMysqlRole({ hostPattern: "%", grants: [{ privileges: [privilege], schema, table }] }).map((violation) => violation.field);
    expect(fields("SELECT")).toEqual([]);
    expect(fields("SELECT", "app", "t")).toEqual([]);
    for (const privilege of ["ALL", "GRANT OPTION", "CREATE USER", "FILE", "SUPER", "select", "SELECT ON *.* TO x", "TRIGGER"]) {
      expect(fields(privilege)).toEqual(["grants[0].privileges[0]"]);
    }
    expect(fields("EXECUTE", "app", "t")).toEqual(["grants[0].privileges[0]"]);
    for (const schema of ["mysql", "MySQL", "sys", "information_schema", "", "a\\b"]) expect(fields("SELECT", schema)).toEqual(["grants[0].schema"]);
    expect(checkMysqlRole({ hostPattern: "'@'", grants: [{ privileges: ["SELECT"], schema: "a" }] })).toHaveLength(1);
  });

  it("has names of 32 characters, whatever the instance", () => {
    for (const instance of ["a", "dev", "x".repeat(16)]) {
      const name = loginName(instance, "credentials/mysql/payments/a-long-role", "abcdefghijkl", { maxBytes: 32 });
      expect(name.length).toBeLessThanOrEqual(32);
      expect(name).toMatch(new RegExp(`^lh_${instance}_([a-z0-9_]+_)?abcdefghijkl$`));
    }
  });
});
