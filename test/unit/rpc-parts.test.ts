import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { Metrics } from "../../src/base/metrics.ts";
import type { AuditEntry } from "../../src/model/audit.ts";
import { CAPABILITIES } from "../../src/model/capability.ts";
import { overlaps, parseAnyScope } from "../../src/rpc/authorize.ts";
import { Denials } from "../../src/rpc/denials.ts";
import { METHODS, SERVICES } from "../../src/rpc/methods.ts";
import { PageTokens, type TokenBox } from "../../src/rpc/page-token.ts";
import { RateLimit } from "../../src/rpc/rate-limit.ts";
import { parseTraceParent } from "../../src/rpc/trace-parent.ts";

const ALICE = { id: "spiffe://acme.test/alice", trustDomain: "acme.test", segments: ["alice"] };
const BOB = { id: "spiffe://acme.test/bob", trustDomain: "acme.test", segments: ["bob"] };

describe("the method table", () => {
  test("has a row for every rpc of every service, with a known capability", () => {
    for (const [name, service] of Object.entries(SERVICES)) {
      const rows = METHODS[name as keyof typeof METHODS] as Record<string, { capability: string }>;
      expect(Object.keys(rows).toSorted()).toEqual(service.methods.map((m) => m.localName).toSorted());
      for (const row of Object.values(rows)) expect(row.capability === "" || (CAPABILITIES as readonly string[]).includes(row.capability)).toBe(true);
    }
  });

  test("what the proto calls free of side effects is a read, and everything else a change, but for streams and the verifier", () => {
    const reads = ["watch", "consume", "tailAudit", "verifyAudit"];
    for (const service of Object.values(SERVICES)) {
      for (const method of service.methods) {
        const rows = METHODS[service.name as keyof typeof METHODS] as Record<string, { audit: string }>;
        const idempotent = method.idempotency === 1;
        expect([method.name, rows[method.localName]!.audit]).toEqual([method.name, idempotent || reads.includes(method.localName) ? "read" : "change"]);
      }
    }
  });
});

describe("scopes", () => {
  test("everything, folders, exact paths", () => {
    expect(parseAnyScope("")).toEqual({ prefix: "", exact: false });
    expect(parseAnyScope("secrets/a/")).toEqual(parseAnyScope("secrets/a/**"));
    expect(parseAnyScope("secrets/a")).toEqual({ prefix: "secrets/a", exact: true });
    for (const bad of ["secrets/../", "//", "nope/", "secrets/a**"]) expect(() => parseAnyScope(bad)).toThrow(LeaseholdError);
  });

  test("overlap in both directions, but never by half a segment", () => {
    const o = (a: string, b: string) => [overlaps(parseAnyScope(a), parseAnyScope(b)), overlaps(parseAnyScope(b), parseAnyScope(a))];
    expect(o("secrets/a/**", "secrets/a/b/**")).toEqual([true, true]);
    expect(o("secrets/a/**", "secrets/a/b")).toEqual([true, true]);
    expect(o("secrets/a/**", "secrets/ab/**")).toEqual([false, false]);
    expect(o("secrets/a", "secrets/a/**")).toEqual([false, false]);
    expect(o("", "secrets/a")).toEqual([true, true]);
  });
});

describe("page tokens (finding 32)", () => {
  const key = randomBytes(32);
  const box: TokenBox = {
    seal(plaintext, context) {
      const iv = randomBytes(12);
      const cipher = createCipheriv("aes-256-gcm", key, iv).setAAD(context);
      return Buffer.concat([iv, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
    },
    open(sealed, context) {
      const bytes = Buffer.from(sealed);
      if (bytes.length < 28) return undefined;
      const decipher = createDecipheriv("aes-256-gcm", key, bytes.subarray(0, 12)).setAAD(context).setAuthTag(bytes.subarray(-16));
      try {
        return Buffer.concat([decipher.update(bytes.subarray(12, -16)), decipher.final()]);
      } catch {
        return undefined;
      }
    },
  };
  const tokens = new PageTokens(box);
  const filter = { prefix: "secrets/a/", showDeleted: false };

  test("open in the call they are of, tell nothing, and the empty one asks for the first page", () => {
    const token = tokens.seal("ListSecrets", filter, ALICE, "secrets/a/hidden name");
    expect(Buffer.from(token, "base64url").toString("latin1")).not.toContain("hidden");
    expect(tokens.open("ListSecrets", filter, ALICE, token)).toBe("secrets/a/hidden name");
    expect(tokens.open("ListSecrets", filter, ALICE, "")).toBeUndefined();
  });

  test("fit no other method, filter, principal, namespace or day", () => {
    const token = tokens.seal("ListSecrets", filter, ALICE, "k", 1000);
    const attempts = [
      () => tokens.open("ListLeases", filter, ALICE, token, 1000),
      () => tokens.open("ListSecrets", { ...filter, showDeleted: true }, ALICE, token, 1000),
      () => tokens.open("ListSecrets", filter, BOB, token, 1000),
      () => new PageTokens(box, "other").open("ListSecrets", filter, ALICE, token, 1000),
      () => tokens.open("ListSecrets", filter, ALICE, token, 1000 + 25 * 3600 * 1000),
      () => tokens.open("ListSecrets", filter, ALICE, `${token.slice(0, -2)}AA`, 1000),
      () => tokens.open("ListSecrets", filter, ALICE, "not a token", 1000),
    ];
    for (const attempt of attempts) expect(attempt).toThrow(expect.objectContaining({ reason: "PAGE_TOKEN_INVALID" }));
    expect(tokens.open("ListSecrets", filter, ALICE, token, 1000)).toBe("k");
  });
});

describe("rate limit", () => {
  test("refills with time, per principal, and says when to come back", () => {
    const limit = new RateLimit({ perSecond: 10, burst: 2 });
    limit.take("a", "read", 0, 0);
    limit.take("a", "read", 0, 0);
    expect(() => limit.take("a", "read", 0, 0)).toThrow(expect.objectContaining({ reason: "RATE_LIMITED", retryAfterMs: 100 }));
    limit.take("b", "read", 0, 0);
    limit.take("a", "read", 0, 100);
    expect(() => limit.take("a", "read", 0, 100)).toThrow(LeaseholdError);
  });

  test("a large request costs more", () => {
    const limit = new RateLimit({ perSecond: 1, burst: 100 });
    limit.take("a", "read", 99 * 256, 0);
    expect(() => limit.take("a", "read", 0, 0)).toThrow(LeaseholdError);
  });

  test("denials leave a debt of at most one burst", () => {
    const limit = new RateLimit({ perSecond: 10, burst: 100 });
    for (let i = 0; i < 100; i++) limit.penalize("a", 0);
    expect(() => limit.take("a", "read", 0, 10_000)).toThrow(LeaseholdError);
    limit.take("a", "read", 0, 10_101);
  });

  test("remembers a bounded number of principals, and forgets those first that have nothing to remember", () => {
    const limit = new RateLimit({ perSecond: 1, burst: 1 });
    limit.take("spent", "read", 0, 1_000_000);
    for (let i = 0; i < 9_999; i++) limit.take(`old${i}`, "read", 0, 0);
    for (let i = 0; i < 5_000; i++) limit.take(`new${i}`, "read", 0, 1_000_000);
    expect(() => limit.take("spent", "read", 0, 1_000_000)).toThrow(LeaseholdError);
  });
});

describe("traceparent", () => {
  const trace = "0af7651916cd43dd8448eb211c80319c";
  test("is taken when well-formed", () => {
    expect(parseTraceParent(`00-${trace}-b7ad6b7169203331-01`)).toEqual({ traceId: trace, spanId: "b7ad6b7169203331", sampled: true });
    expect(parseTraceParent(`00-${trace}-b7ad6b7169203331-02`)?.sampled).toBe(false);
  });
  test("and ignored otherwise", () => {
    const bad = [
      undefined,
      1,
      "",
      `ff-${trace}-b7ad6b7169203331-01`,
      `00-${"0".repeat(32)}-b7ad6b7169203331-01`,
      `00-${trace}-${"0".repeat(16)}-01`,
      `00-${trace.toUpperCase()}-b7ad6b7169203331-01`,
      `00-${trace}-b7ad6b7169203331-01${"-x".repeat(100)}`,
    ];
    for (const header of bad) expect(parseTraceParent(header)).toBeUndefined();
  });
});

describe("denials", () => {
  const entry: AuditEntry = {
    principal: "p",
    requestId: "",
    traceId: "",
    action: "a",
    capability: "read",
    peer: "",
    at: 0,
    path: "x/y",
    outcome: "PERMISSION_DENIED",
  };
  test("different ones are not merged; a failed write fails all that waited for it", () => {
    const written: AuditEntry[] = [];
    let failure: Error | undefined;
    const denials = new Denials({ append: (e, done) => (written.push(e), done(failure, 1)) }, 60_000);
    const results: (Error | undefined)[] = [];
    const done = (error: Error | undefined) => void results.push(error);
    denials.append(entry, done);
    denials.append({ ...entry, path: "x/z" }, done);
    denials.append(entry, done);
    denials.append(entry, done);
    failure = new Error("disk full");
    denials.flush();
    expect(written.map((e) => [e.path, e.count])).toEqual([
      ["x/y", undefined],
      ["x/z", undefined],
      ["x/y", 2],
    ]);
    expect(results).toEqual([undefined, undefined, failure, failure]);
  });
});

describe("metrics", () => {
  test("the same name and labels are the same cell; another kind is refused", () => {
    const metrics = new Metrics();
    metrics.counter("c", "h", { a: "1", b: "2" }).add(2);
    metrics.counter("c", "h", { b: "2", a: "1" }).add();
    expect(metrics.counter("c", "h", { a: "1", b: "2" }).value).toBe(3);
    expect(() => metrics.gauge("c", "h")).toThrow("counter");
  });

  test("a histogram's bucket takes its upper bound in", () => {
    const h = new Metrics().histogram("h", "h", [1, 2]);
    for (const value of [0.5, 1, 1.5, 2, 3]) h.observe(value);
    expect([...h.counts]).toEqual([2, 2, 1]);
    expect([h.count, h.sum]).toEqual([5, 8]);
  });
});
