import { status } from "@grpc/grpc-js";
import { afterEach, describe, expect, test } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { CredentialService } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { IdentityService } from "../../src/gen/leasehold/v1/identity_service_pb.ts";
import { LeaseService } from "../../src/gen/leasehold/v1/lease_service_pb.ts";
import { PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { ALICE, type Harness, until } from "../support/rpc-harness.ts";
import { type Parts, startParts } from "../support/rpc-start.ts";

const { getSecret, putSecret, listSecrets, batchGetSecrets } = SecretService.method;

let harness: Harness | undefined;

async function start(parts: Parts = {}): Promise<Harness> {
  return (harness = await startParts(parts));
}

afterEach(async () => {
  await harness?.close();
  harness = undefined;
});

describe("answers", () => {
  test("a read is answered once its record is durable, and the record says who, what and which version", async () => {
    const h = await start({
      secrets: {
        getSecret: (r, call) => {
          call.version = 7;
          return { path: r.path, version: 7n };
        },
      },
    });
    h.audit.held = [];
    let answered = false;
    const reply = h.call(getSecret, { path: "secrets/a/b" }).then((r) => ((answered = true), r));
    await until(() => h.audit.held!.length === 1);
    expect(answered).toBe(false);
    h.audit.release();
    expect((await reply).answer?.version).toBe(7n);
    expect(h.audit.entries).toMatchObject([
      { principal: ALICE.id, action: "SecretService/GetSecret", capability: "read", path: "secrets/a/b", outcome: "ok", version: 7, peer: "192.0.2.1:1234" },
    ]);
  });

  test("an asynchronous handler's answer arrives too", async () => {
    const h = await start({ secrets: { getSecret: async (r) => ({ path: r.path, version: 1n }) } });
    expect((await h.call(getSecret, { path: "secrets/a/b" })).answer?.path).toBe("secrets/a/b");
  });

  test("WhoAmI needs no policy", async () => {
    const h = await start();
    const { answer } = await h.call(IdentityService.method.whoAmI, {});
    expect(answer).toMatchObject({ principal: ALICE.id, trustDomain: "acme.test", certificateSerial: "0a", policies: ["p1", "p2"] });
  });

  test("the caller's trace id is in the record; a malformed traceparent is ignored", async () => {
    const h = await start();
    const trace = "0af7651916cd43dd8448eb211c80319c";
    await h.call(getSecret, { path: "secrets/a/b" }, { metadata: { traceparent: `00-${trace}-b7ad6b7169203331-01` } });
    await h.call(getSecret, { path: "secrets/a/b" }, { metadata: { traceparent: "00-xyz" } });
    expect(h.audit.entries.map((e) => e.traceId)).toEqual([trace, ""]);
  });
});

describe("who may", () => {
  test("unauthorized and invalid: PERMISSION_DENIED before REQUEST_INVALID", async () => {
    const h = await start();
    const invalid = { path: "secrets/other", selector: { case: "version", value: 0n } } as const;
    expect((await h.call(getSecret, invalid)).reason).toBe("PERMISSION_DENIED");
    const allowed = await h.call(getSecret, { ...invalid, path: "secrets/a/b" });
    expect(allowed.reason).toBe("REQUEST_INVALID");
    expect(allowed.error?.code).toBe(status.INVALID_ARGUMENT);
  });

  test("a denial is the same for what exists and what does not, and names only what was asked for", async () => {
    const h = await start();
    h.resources.leases.set("real", { rolePath: "credentials/postgres/secret-team/ro", owner: "spiffe://acme.test/other" });
    const real = await h.call(LeaseService.method.getLease, { path: "leases/real" });
    const absent = await h.call(LeaseService.method.getLease, { path: "leases/none" });
    expect(real.reason).toBe("PERMISSION_DENIED");
    expect(absent.error?.details).toBe(real.error?.details);
    expect(JSON.stringify(real.status?.details.map((d) => Buffer.from(d.value).toString("latin1")))).not.toContain("secret-team");
    const shape = (r: typeof real) =>
      r.status!.details.map((d) => [
        d.typeUrl,
        Buffer.from(d.value)
          .toString("latin1")
          .replace(/real|none/, "x")
          .replace(/[0-9a-f-]{36}/, "id"),
      ]);
    expect(shape(absent)).toEqual(shape(real));
  });

  test("finding 15: a lease is authorized by its stored role path and its owner", async () => {
    const h = await start({
      leases: {
        getLease: (_r, call) => ({ lease: { rolePath: call.stored?.kind === "lease" ? call.stored.rolePath : "" } }),
        renewLease: () => ({}),
        revokeLease: () => ({}),
      },
    });
    h.resources.leases.set("mine", { rolePath: "credentials/postgres/a/ro", owner: ALICE.id });
    h.resources.leases.set("other", { rolePath: "credentials/postgres/b/ro", owner: "spiffe://acme.test/x" });
    expect((await h.call(LeaseService.method.getLease, { path: "leases/mine" })).answer?.lease?.rolePath).toBe("credentials/postgres/a/ro");
    expect((await h.call(LeaseService.method.getLease, { path: "leases/other" })).reason).toBe("PERMISSION_DENIED");
    expect((await h.call(LeaseService.method.renewLease, { path: "leases/mine" })).reason).toBe("PERMISSION_DENIED"); // the owner needs renew, as everybody
    h.access.allowed.push(["renew", "credentials/postgres/a/ro"], ["describe", "credentials/postgres/b/**"]);
    expect((await h.call(LeaseService.method.renewLease, { path: "leases/mine" })).error).toBeUndefined();
    expect((await h.call(LeaseService.method.getLease, { path: "leases/other" })).error).toBeUndefined();
    h.access.denied.push(["revoke", "credentials/postgres/a/ro"]);
    expect((await h.call(LeaseService.method.revokeLease, { path: "leases/mine" })).reason).toBe("PERMISSION_DENIED"); // an explicit deny wins over ownership
    h.access.allowed.push(["describe", "leases/**"]);
    expect((await h.call(LeaseService.method.getLease, { path: "leases/none" })).reason).toBe("LEASE_NOT_FOUND"); // who may know is told
  });

  test("finding 15: a set handler that asks for no permission is not let through", async () => {
    const h = await start({ secrets: { listSecrets: () => ({ secrets: [{ path: "secrets/x/hidden" }] }) } });
    const { reason, answer } = await h.call(listSecrets, { prefix: "secrets/" });
    expect([reason, answer]).toEqual(["INTERNAL", undefined]);
  });

  test("a set with nothing in it needs no permission", async () => {
    const h = await start({
      secrets: {
        listSecrets: () => ({}),
        batchGetSecrets: (r, call) => {
          for (const { path } of r.requests) call.recordItem({ path: "", outcome: path === "" ? "PATH_INVALID" : "ok" });
          return { results: [{ result: { case: "error", value: { code: 3 } } }] };
        },
      },
    });
    expect((await h.call(listSecrets, {})).error).toBeUndefined();
    expect((await h.call(batchGetSecrets, { requests: [{ path: "" }] })).error).toBeUndefined();
    expect((await h.call(batchGetSecrets, { requests: [{ path: "secrets/a/b" }] })).reason).toBe("INTERNAL");
  });

  test("finding 14: conditions see the effective ttl: the role's default when none was asked for", async () => {
    const h = await start({ credentials: { issueCredential: () => ({}) } });
    h.resources.defaults.set("credentials/postgres/a/ro", 3_600_000);
    h.access.allowed.push(["issue", "credentials/**"]);
    await h.call(CredentialService.method.issueCredential, { path: "credentials/postgres/a/ro" });
    await h.call(CredentialService.method.issueCredential, { path: "credentials/postgres/a/ro", ttl: { seconds: 5n } });
    const method = "CredentialService/IssueCredential";
    expect(h.access.facts).toEqual([
      { method, ttlMs: 3_600_000 },
      { method, ttlMs: 5000 },
    ]);
  });

  test("ExplainAccess is free about oneself; about others it needs policy-read on all policies", async () => {
    const h = await start({ policies: { explainAccess: () => ({ allowed: true }) } });
    const ask = (principal: string) => h.call(PolicyService.method.explainAccess, { principal, path: "secrets/x/y", capability: "read" });
    expect((await ask("")).answer?.allowed).toBe(true);
    expect((await ask(ALICE.id)).answer?.allowed).toBe(true);
    expect((await ask("spiffe://acme.test/bob")).reason).toBe("PERMISSION_DENIED");
    h.access.allowed.push(["policy-read", "policies/**"]);
    expect((await ask("spiffe://acme.test/bob")).answer?.allowed).toBe(true);
  });

  test("lesson 47, finding 36: a path that is not canonical tells nothing and is never matched", async () => {
    const h = await start();
    for (const path of ["secrets/a/../b", "secrets//a", "secrets/a/", "secrets/a\u0000b", "secrets/%61/b", "secrets/a/\u00e9", "", "leases/x"]) {
      const { reason, error } = await h.call(getSecret, { path });
      expect([path, reason, error?.details]).toEqual([path, "PATH_INVALID", "the path is not canonical"]);
    }
    expect(h.access.facts).toEqual([]);
  });
});

describe("who calls", () => {
  test("finding 39: a connection that the front does not know is nobody", async () => {
    const h = await start();
    h.connection = undefined;
    const { error, reason } = await h.call(getSecret, { path: "secrets/a/b" });
    expect([error?.code, reason]).toEqual([status.UNAUTHENTICATED, "PRINCIPAL_INVALID"]);
  });

  test("lesson 48: a refusal wins over the identity that came with it", async () => {
    const h = await start();
    h.connection = { ...h.connection!, refusal: "CERTIFICATE_REVOKED" };
    expect((await h.call(getSecret, { path: "secrets/a/b" })).reason).toBe("CERTIFICATE_REVOKED");
  });

  test("finding 13: a certificate that ended while connected is refused at the next call", async () => {
    const h = await start();
    h.connection = { ...h.connection!, notAfter: Date.now() - 1 };
    const { error, reason } = await h.call(getSecret, { path: "secrets/a/b" });
    expect([error?.code, reason]).toEqual([status.UNAUTHENTICATED, "CERTIFICATE_EXPIRED"]);
  });
});

describe("errors", () => {
  test("a rejected handler answers INTERNAL, and its text stays in our log", async () => {
    const h = await start({ secrets: { getSecret: async () => Promise.reject(new Error("password=hunter2")) } });
    const { error, reason, status: details } = await h.call(getSecret, { path: "secrets/a/b" });
    expect([error?.code, error?.details, reason]).toEqual([status.INTERNAL, "internal error", "INTERNAL"]);
    expect(JSON.stringify(details?.details.map((d) => Buffer.from(d.value).toString("latin1")))).not.toContain("hunter2");
    expect(h.logs.join("")).toContain("hunter2");
  });

  test("a handler that throws at once, and one that throws no error at all, answer INTERNAL", async () => {
    const h = await start({
      secrets: {
        getSecret: (r) => {
          throw r.path.endsWith("b") ? new TypeError("x") : { code: 0, details: "leak" };
        },
      },
    });
    for (const path of ["secrets/a/b", "secrets/a/c"]) expect((await h.call(getSecret, { path })).error?.details).toBe("internal error");
  });

  test("an answer that can't be encoded is INTERNAL without grpc-js's text", async () => {
    const h = await start({ secrets: { getSecret: () => ({ version: "not a number" as unknown as bigint }) } });
    expect((await h.call(getSecret, { path: "secrets/a/b" })).error?.details).toBe("internal error");
  });

  test("a lone surrogate in an error does not crash or hang", async () => {
    const lone = "\ud800";
    const h = await start({
      secrets: {
        getSecret: () => {
          throw new LeaseholdError("SECRET_NOT_FOUND", lone, { metadata: { path: lone } });
        },
      },
    });
    const { error, reason } = await h.call(getSecret, { path: "secrets/a/b" });
    expect([error?.code, reason]).toEqual([status.NOT_FOUND, "SECRET_NOT_FOUND"]);
  });

  test("malformed bytes are REQUEST_INVALID, an oversize message RESOURCE_EXHAUSTED, an unknown method UNIMPLEMENTED", async () => {
    const h = await start();
    const path = "/leasehold.v1.SecretService/GetSecret";
    await expect(h.raw(path, Buffer.from([0xff, 0xff, 0xff]))).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
    await expect(h.raw(path, Buffer.alloc(300_000))).rejects.toMatchObject({ code: status.INVALID_ARGUMENT }); // before it is decoded
    await expect(h.raw(path, Buffer.alloc(2_000_000))).rejects.toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    await expect(h.raw("/leasehold.v1.SecretService/Nothing", Buffer.alloc(0))).rejects.toMatchObject({ code: status.UNIMPLEMENTED });
    await expect(h.raw("/nothing.v1.Service/Nothing", Buffer.alloc(0))).rejects.toMatchObject({ code: status.UNIMPLEMENTED });
  });

  test("only who may write a policy somewhere may send a large one", async () => {
    const h = await start({ policies: { putPolicy: () => ({}) } });
    const policy = {
      name: "p",
      principals: ["spiffe://acme.test/**"],
      rules: [{ paths: Array.from({ length: 900 }, (_, i) => `secrets/${"x".repeat(400)}${i}`) }],
    };
    expect((await h.call(PolicyService.method.putPolicy, { policy })).reason).toBe("REQUEST_INVALID");
    h.access.allowed.push(["policy-write", "policies/**"]);
    expect((await h.call(PolicyService.method.putPolicy, { policy })).error).toBeUndefined();
  });

  test("a request_id must be a UUID", async () => {
    const h = await start({ secrets: { putSecret: (r) => ({ path: r.path }) } });
    const put = (requestId: string) => h.call(putSecret, { path: "secrets/a/b", data: { k: { kind: { case: "text", value: "v" } } }, requestId });
    expect((await put("not-a-uuid")).reason).toBe("REQUEST_INVALID");
    expect((await put("0199f3c2-8d1e-7000-8000-000000000001")).error).toBeUndefined();
    expect((await put("")).error).toBeUndefined();
  });
});

describe("limits", () => {
  test("a deadline that leaves no time is refused, one that passes meanwhile is answered by us", async () => {
    const h = await start({
      secrets: {
        getSecret: (r, call) =>
          r.path.endsWith("slow") ? new Promise((resolve) => call.signal.addEventListener("abort", () => resolve({}))) : { path: r.path },
      },
      options: { maxUnaryMs: 50, deadlineShaveMs: 5000 },
    });
    expect((await h.call(getSecret, { path: "secrets/a/b" }, { deadlineMs: 4000 })).reason).toBe("DEADLINE_TOO_SHORT");
    const slow = await h.call(getSecret, { path: "secrets/a/slow" });
    expect([slow.error?.code, slow.reason]).toEqual([status.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT"]);
  });

  test("finding 36: the token bucket is asked before authorization, and a caller without rights can't make a record per call", async () => {
    const h = await start({ options: { rate: { perSecond: 0.001, burst: 101 } } });
    const reasons = [];
    for (let i = 0; i < 4; i++) reasons.push((await h.call(getSecret, { path: "secrets/forbidden" })).reason);
    expect(reasons).toEqual(["PERMISSION_DENIED", "PERMISSION_DENIED", "RATE_LIMITED", "RATE_LIMITED"]); // a denial costs 51
    expect(h.access.facts.length).toBe(2);
    const limited = await h.call(getSecret, { path: "secrets/a/b" });
    expect(limited.error?.code).toBe(status.RESOURCE_EXHAUSTED);
    expect(limited.status?.details.map((d) => d.typeUrl.split(".").at(-1))).toEqual(["ErrorInfo", "RetryInfo", "QuotaFailure", "RequestInfo"]);
  });

  test("finding 36: equal denials become one record with their exact count", async () => {
    const h = await start({ options: { denialWindowMs: 60_000 } });
    const replies = [0, 1, 2, 3, 4].map(() => h.call(getSecret, { path: "secrets/forbidden" }));
    await until(() => h.audit.entries.length === 1 && h.pipeline.size === 4);
    h.pipeline.denials.flush();
    expect((await Promise.all(replies)).map((r) => r.reason)).toEqual(Array(5).fill("PERMISSION_DENIED"));
    expect(h.audit.entries.map((e) => e.count)).toEqual([undefined, 4]);
  });

  test("sealed and draining", async () => {
    const h = await start();
    h.pipeline.admission.sealed = true;
    expect((await h.call(getSecret, { path: "secrets/a/b" })).reason).toBe("SEALED");
    h.pipeline.admission.sealed = false;
    h.pipeline.admission.draining = true;
    expect((await h.call(getSecret, { path: "secrets/a/b" })).reason).toBe("DRAINING");
  });

  test("a call beyond the cap is refused and the cap is given back", async () => {
    let release = (): void => undefined;
    const h = await start({
      secrets: { getSecret: (r) => (r.path.endsWith("slow") ? new Promise((resolve) => (release = () => resolve({}))) : { path: r.path }) },
      options: { maxInFlight: 1 },
    });
    const slow = h.call(getSecret, { path: "secrets/a/slow" });
    await until(() => h.pipeline.size === 1);
    expect((await h.call(getSecret, { path: "secrets/a/b" })).reason).toBe("OVERLOADED");
    release();
    await slow;
    expect((await h.call(getSecret, { path: "secrets/a/b" })).error).toBeUndefined();
    expect(h.pipeline.admission.calls).toBe(0);
  });
});

test("exactly one status per call, and every call leaves the books", async () => {
  const h = await start({
    secrets: { getSecret: (r) => (r.path.endsWith("x") ? Promise.reject(new LeaseholdError("SECRET_NOT_FOUND")) : Promise.resolve({ path: r.path })) },
  });
  const paths = ["secrets/a/b", "secrets/a/x", "secrets/no", "bad//path"];
  await Promise.all(Array.from({ length: 200 }, (_, i) => h.call(getSecret, { path: paths[i % 4]! })));
  const counts = new Map<string, number>();
  for (const family of h.metrics.families()) {
    if (family.name === "leasehold_rpc_total") for (const { labels, cell } of family.samples) counts.set(labels["outcome"]!, (cell as { value: number }).value);
  }
  expect(Object.fromEntries(counts)).toEqual({ ok: 50, SECRET_NOT_FOUND: 50, PERMISSION_DENIED: 50, PATH_INVALID: 50 });
  expect(h.pipeline.size).toBe(0);
});
