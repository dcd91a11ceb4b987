import { describe, expect, it, test } from "vitest";
import { Sensitive } from "../../src/base/sensitive.ts";
import type { WebhookConfig } from "../../src/model/subscription.ts";
import { connectionProblem, guardedLookup, hostProblem, resolveDestination } from "../../src/subscriptions/destination.ts";
import { SinkSecrets } from "../../src/subscriptions/sink-secrets.ts";
import { headerProblem } from "../../src/subscriptions/webhook/headers.ts";
import { verdictOf } from "../../src/subscriptions/webhook/verdict.ts";

const STRICT = { allowPlaintext: false, hosts: [] };

describe("where a sink may be", () => {
  it.each([
    ["hooks.acme.test", true],
    ["10.1.2.3", true],
    ["127.0.0.1", true],
    ["169.254.169.254", false],
    ["::ffff:169.254.169.254", false],
    ["0.0.0.0", false],
    ["224.0.0.1", false],
    ["255.255.255.255", false],
    ["fe80::1", false],
    ["fd00:ec2::254", false],
    ["64:ff9b::a9fe:a9fe", false],
  ])("with TLS %s: %s", (host, allowed) => expect(hostProblem(host, true, STRICT) === undefined).toBe(allowed));

  it.each([
    ["127.0.0.1", true],
    ["::1", true],
    ["::ffff:127.0.0.1", true],
    ["localhost", true],
    ["10.1.2.3", false],
    ["hooks.acme.test", false],
    ["localhost.evil.test", false],
  ])("without TLS %s: %s", (host, allowed) => {
    expect(hostProblem(host, false, STRICT) === undefined).toBe(allowed);
    expect(hostProblem("10.1.2.3", false, { ...STRICT, allowPlaintext: true })).toBeUndefined();
  });

  it("only among the configured hosts, where there are some", () => {
    const rules = { allowPlaintext: false, hosts: ["hooks.acme.test", "*.svc.test"] };
    const allowed = ["hooks.acme.test", "HOOKS.acme.test", "a.svc.test", "a.b.svc.test", "svc.test", "evilsvc.test", "acme.test"];
    expect(allowed.map((host) => hostProblem(host, true, rules) === undefined)).toEqual([true, true, true, true, false, false, false]);
  });

  it("an address is judged when the connection is made, too", async () => {
    await expect(resolveDestination("169.254.169.254", true, STRICT)).rejects.toThrow("no receiver can be");
    expect((await resolveDestination("localhost", false, STRICT)).length).toBeGreaterThan(0);
    const looked = await new Promise<unknown>((resolve) => guardedLookup(true, STRICT)("169.254.169.254", { all: true }, (error) => resolve(error)));
    expect(connectionProblem(looked)).toBe("the destination is an address where no receiver can be");
  });
});

test("a status says whether it is the events that are refused", () => {
  const kinds = (statuses: readonly number[]): string[] => [...new Set(statuses.map((status) => verdictOf(status, undefined, 0).kind))];
  expect(kinds([200, 201, 204, 299])).toEqual(["accepted"]);
  expect(kinds([400, 402, 406, 409, 411, 412, 413, 415, 418, 422, 451])).toEqual(["refused"]);
  expect(kinds([100, 301, 302, 307, 308, 401, 403, 404, 405, 407, 408, 410, 421, 423, 425, 426, 429, 500, 502, 503, 599])).toEqual(["unavailable"]);
  const after = (text: string): unknown => (verdictOf(503, text, 1000) as { retryAfterMs?: number }).retryAfterMs;
  expect([after("7"), after("999999999"), after("0"), after("-1"), after("soon"), after(new Date(61_000).toUTCString())]).toEqual([
    7000,
    3_600_000,
    undefined,
    undefined,
    undefined,
    60_000,
  ]);
});

test("headers: neither ours nor, unsealed, those that carry credentials; nothing that ends a line", () => {
  const ok = (name: string, value = "x", secret = false): boolean => headerProblem(name, value, secret) === undefined;
  expect(["X-Team", "traceparent", "X-Tenant-Id"].map((name) => ok(name))).toEqual([true, true, true]);
  for (const name of ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Leasehold-Signature", "Idempotency-Key", "a b", "", "x\r\ny"])
    expect([name, ok(name, "x", true)]).toEqual([name, false]);
  for (const name of ["Authorization", "Cookie", "X-Api-Key", "X-Auth-Token", "X-Vault-Token"]) expect([ok(name), ok(name, "x", true)]).toEqual([false, true]);
  expect([ok("X-A", "a\r\nb: c"), ok("X-A", "ü"), ok("X-A", " a"), ok("X-A", "a".repeat(4097))]).toEqual([false, false, false, false]);
});

describe("a sink's secrets", () => {
  const webhook: { kind: "webhook" } & WebhookConfig = {
    kind: "webhook",
    url: "https://a.test/",
    headers: {},
    secretHeaders: [],
    timeoutMs: 1000,
    maxRefusals: 5,
  };
  const input = (signing?: string, headers: Record<string, string> = {}) => ({
    secretHeaders: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Sensitive.text(value)])),
    ...(signing === undefined ? {} : { signingSecret: Sensitive.text(signing) }),
  });
  const [one, two, three] = ["a".repeat(16), "b".repeat(16), "c".repeat(16)];

  it("a new key signs beside those of the last day, the same one again changes nothing", () => {
    const first = new SinkSecrets({}).changed(webhook, input(one), false, 0);
    const same = new SinkSecrets(first.secrets!).changed(webhook, input(one), false, 10);
    expect([first.signingKey, same]).toEqual([1, { signingKey: 1, secrets: first.secrets }]);
    const second = new SinkSecrets(first.secrets!).changed(webhook, input(two), false, 1000);
    const third = new SinkSecrets(second.secrets!).changed(webhook, input(three), false, 2000);
    const ids = (now: number): number[] => new SinkSecrets(third.secrets!).signingKeys(now).map(({ id }) => id);
    expect([ids(3000), ids(86_401_500), ids(86_402_500)]).toEqual([[3, 2, 1], [3, 2], [3]]);
  });

  it("what is left out stays, an empty header goes; elsewhere everything is asked for again", () => {
    const { secrets } = new SinkSecrets({}).changed(webhook, input(one, { authorization: "x", "x-token": "y" }), false, 0);
    const kept = new SinkSecrets(secrets!).changed(webhook, input(undefined, { "x-token": "" }), false, 0);
    expect([...new SinkSecrets(kept.secrets!).headers.keys()]).toEqual(["authorization"]);
    const moved = (signing?: string, headers?: Record<string, string>) => new SinkSecrets(kept.secrets!).changed(webhook, input(signing, headers), true, 0);
    expect(() => moved()).toThrow("secret_headers: are needed again");
    expect(() => moved(undefined, { authorization: "z" })).toThrow("signing_secret: is needed again");
    expect(new SinkSecrets(moved(two, { authorization: "z" }).secrets!).signingKeys(0)).toHaveLength(1);
    expect(() => new SinkSecrets({}).changed(webhook, input("short"), false, 0)).toThrow("16 to 1024 bytes");
    expect(() => new SinkSecrets({}).changed(webhook, input(), false, 0)).toThrow("is needed");
  });

  it("show themselves to nobody", () => {
    const { secrets } = new SinkSecrets({}).changed(webhook, input(one, { authorization: "hush" }), false, 0);
    const opened = new SinkSecrets(secrets!);
    expect(`${String(opened.headers.get("authorization"))} ${JSON.stringify([...opened.headers.values()])}`).toBe('[redacted] ["[redacted]"]');
  });
});
