import { status } from "@grpc/grpc-js";
import { afterEach, describe, expect, test } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { CredentialService } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { type Harness, until } from "../support/rpc-harness.ts";
import { type Parts, startParts } from "../support/rpc-start.ts";

const { getSecret, putSecret, batchGetSecrets } = SecretService.method;

let harness: Harness | undefined;

async function start(parts: Parts = {}): Promise<Harness> {
  return (harness = await startParts(parts));
}

afterEach(async () => {
  await harness?.close();
  harness = undefined;
});

describe("audit", () => {
  test("when the record can't be written nothing is disclosed: AUDIT_UNAVAILABLE", async () => {
    const h = await start();
    h.audit.failure = new LeaseholdError("AUDIT_UNAVAILABLE");
    const { answer, error, reason } = await h.call(getSecret, { path: "secrets/a/b" });
    expect([answer, error?.code, reason]).toEqual([undefined, status.UNAVAILABLE, "AUDIT_UNAVAILABLE"]);
  });

  test("lesson 51: the record is written even though the client hung up", async () => {
    let release = (): void => undefined;
    const h = await start({ secrets: { getSecret: () => new Promise((resolve) => (release = () => resolve({}))) } });
    const reply = h.call(getSecret, { path: "secrets/a/b" }, { onCall: (cancel) => void until(() => h.pipeline.size === 1).then(cancel) });
    expect((await reply).error?.code).toBe(status.CANCELLED);
    release();
    await until(() => h.audit.entries.length === 1);
    expect(h.audit.entries[0]).toMatchObject({ path: "secrets/a/b", outcome: "ok" });
    await until(() => h.pipeline.size === 0);
  });

  test("lesson 53: an answer whose record failed, or whose caller had gone, is undone", async () => {
    const undone: string[] = [];
    let release = (): void => undefined;
    let gone = (): boolean => false;
    const h = await start({
      credentials: {
        issueCredential(r, call) {
          call.onUndelivered(() => undone.push(r.path));
          gone = () => call.cancelled;
          if (r.path.endsWith("slow")) return new Promise((resolve) => (release = () => ((call.recorded = true), resolve({}))));
          call.recorded = r.path.endsWith("recorded");
          return {};
        },
      },
    });
    h.access.allowed.push(["issue", "credentials/**"]);
    const issue = (name: string, cancel = false) =>
      h.call(
        CredentialService.method.issueCredential,
        { path: `credentials/${name}` },
        cancel ? { onCall: (stop) => void until(() => h.pipeline.size === 1).then(stop) } : {},
      );
    h.audit.failure = new LeaseholdError("AUDIT_UNAVAILABLE");
    expect((await issue("lost")).reason).toBe("AUDIT_UNAVAILABLE");
    expect((await issue("recorded")).error).toBeUndefined(); // its record went with the change
    expect((await issue("slow", true)).error?.code).toBe(status.CANCELLED);
    await until(gone);
    release();
    await until(() => undone.length === 2);
    expect(undone).toEqual(["credentials/lost", "credentials/slow"]);
  });

  test("a change's success is left to the committer, its failure and its dry run are recorded here", async () => {
    const h = await start({
      secrets: {
        putSecret(r, call) {
          if (r.path.endsWith("bad")) throw new LeaseholdError("VERSION_MISMATCH");
          call.recorded = !r.path.endsWith("dry");
          return {};
        },
      },
    });
    const data = { k: { kind: { case: "text", value: "v" } } } as const;
    for (const name of ["good", "bad", "dry"]) await h.call(putSecret, { path: `secrets/a/${name}`, data });
    expect(h.audit.entries.map((e) => [e.path, e.outcome])).toEqual([
      ["secrets/a/bad", "VERSION_MISMATCH"],
      ["secrets/a/dry", "ok"],
    ]);
  });

  test("a batch leaves a record per item, all durable before the answer", async () => {
    const h = await start({
      secrets: {
        batchGetSecrets: (r, call) => {
          for (const { path } of r.requests) call.recordItem(call.allows(path) ? { path, outcome: "ok", version: 1 } : { path, outcome: "PERMISSION_DENIED" });
          return {};
        },
      },
    });
    expect((await h.call(batchGetSecrets, { requests: [{ path: "secrets/a/1" }, { path: "secrets/b/2" }] })).error).toBeUndefined();
    expect(h.audit.entries.map((e) => [e.path, e.outcome, e.version])).toEqual([
      ["secrets/a/1", "ok", 1],
      ["secrets/b/2", "PERMISSION_DENIED", undefined],
    ]);
    h.audit.failure = new Error("no");
    expect((await h.call(batchGetSecrets, { requests: [{ path: "secrets/a/1" }] })).reason).toBe("AUDIT_UNAVAILABLE");
  });

  test("finding 16: a read that learns of a newer revision catches up, is authorized and answered anew", async () => {
    let value = 1n;
    const h = await start({
      secrets: {
        getSecret: (_r, call) => {
          call.version = Number(value);
          return { version: value };
        },
      },
    });
    h.audit.fresh = 9;
    h.freshness.onCatchUp = () => (value = 2n);
    expect((await h.call(getSecret, { path: "secrets/a/b" })).answer?.version).toBe(2n);
    h.audit.fresh = 10;
    h.freshness.onCatchUp = () => h.access.allowed.splice(0); // the policy was deleted elsewhere
    expect((await h.call(getSecret, { path: "secrets/a/b" })).reason).toBe("PERMISSION_DENIED");
    expect(h.freshness.caughtUp).toEqual([9, 10]);
    h.audit.fresh = 11;
    h.freshness.onCatchUp = () => h.access.allowed.push(["read", "secrets/a/**"]); // and written again
    expect((await h.call(getSecret, { path: "secrets/a/b" })).answer?.version).toBe(2n);
  });

  test("finding 16: what was applied only after the decision, while its record was written, does not let the answer out", async () => {
    const h = await start();
    h.audit.held = [];
    const answer = h.call(getSecret, { path: "secrets/a/b" });
    await until(() => h.audit.held!.length > 0);
    h.access.allowed.splice(0); // the policy was deleted elsewhere, and this process has just applied it
    h.freshness.applied = 10;
    h.audit.fresh = 10;
    h.audit.release();
    expect((await answer).reason).toBe("PERMISSION_DENIED");
  });

  test("a change that ran is never run again, however far behind this process is", async () => {
    let runs = 0;
    const h = await start({ secrets: { putSecret: () => (runs++, {}) } });
    h.audit.fresh = 5;
    await h.call(putSecret, { path: "secrets/a/b", data: { k: { kind: { case: "text", value: "v" } } } });
    expect(runs).toBe(1);
  });

  test("a denial seen twice by one call is recorded once", async () => {
    const h = await start();
    h.audit.fresh = 5;
    await h.call(getSecret, { path: "secrets/forbidden" });
    h.pipeline.denials.flush();
    expect(h.audit.entries.map((e) => e.count)).toEqual([undefined]);
    expect(h.freshness.caughtUp).toEqual([5]);
  });

  test("asynchronous audit answers without waiting, but not from a stale feed", async () => {
    const h = await start({ options: { auditReads: "async" } });
    h.audit.held = [];
    expect((await h.call(getSecret, { path: "secrets/a/b" })).error).toBeUndefined();
    h.audit.release();
    h.freshness.lagMs = 2001;
    expect((await h.call(getSecret, { path: "secrets/a/b" })).reason).toBe("STORE_UNAVAILABLE");
  });
});
