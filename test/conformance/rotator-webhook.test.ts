import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isReason } from "../../src/base/errors.ts";
import type { CandidateStep } from "../../src/rotation/rotator.ts";
import type { WebhookConfig } from "../../src/rotation/webhook/config.ts";
import { webhook } from "../../src/rotation/webhook/definition.ts";
import { dataOf, outsideHost } from "../support/rotators.ts";
import { tcpProxy } from "../support/tcp-proxy.ts";
import { isSigned, type WebhookReceiver, webhookReceiver } from "../support/webhook-receiver.ts";
import { rotatorConformance } from "./rotator.ts";

const KEY = "a-key-to-sign-with-0123456789";
const SECRETS = { "secrets/ops/hook": dataOf({ key: KEY }), "secrets/ops/short": dataOf({ key: "short" }), "secrets/ops/empty": dataOf({ other: "x" }) };
const base = { signingSecret: "secrets/ops/hook", timeoutMs: 5000, parameters: { account: "app" }, field: "password", passwordPolicy: undefined };

rotatorConformance("webhook", async () => {
  const receiver = await webhookReceiver(KEY, "the-first-password");
  const proxy = await tcpProxy(receiver.port);
  return {
    definition: webhook,
    config: { ...base, url: `https://localhost:${proxy.port}/rotate`, caPem: receiver.caPem },
    host: outsideHost(SECRETS),
    initial: dataOf({ password: "the-first-password", note: "kept" }),
    async login(data) {
      if (!receiver.accepts(data)) throw new Error("not accepted");
    },
    proxy,
    currentAlwaysWorks: true,
    async stop() {
      await proxy.stop();
      await receiver.stop();
    },
  };
});

describe("a webhook", () => {
  let receiver: WebhookReceiver;
  const rotator = webhook.open(outsideHost(SECRETS));
  beforeAll(async () => {
    receiver = await webhookReceiver(KEY, "first");
  });
  afterAll(() => receiver?.stop());

  const step = (more: Partial<WebhookConfig> = {}): CandidateStep<WebhookConfig> => ({
    path: "secrets/team/app",
    rotationUid: "u",
    config: { ...base, url: `https://localhost:${receiver.port}/`, caPem: receiver.caPem, ...more },
    generation: 1,
    candidateId: "b7d1a2c4-1111-4222-8333-444455556666",
    deadlineAt: Date.now() + 20_000,
    signal: AbortSignal.timeout(20_000),
    traceId: "",
    current: undefined,
    version: 1,
    candidate: dataOf({ password: "secret-of-the-candidate" }),
    previous: undefined,
    givenUp: [],
  });
  const outcome = async (run: Promise<unknown>): Promise<string> =>
    run.then(
      () => "ok",
      (error: unknown) => (isReason(error, "TARGET_UNAVAILABLE", "TARGET_MISCONFIGURED") ? `${error.reason} ${error.metadata["problem"]}` : String(error)),
    );

  it("is sent a signature that holds for this body and time alone", async () => {
    let seen: readonly [string, Buffer] | undefined;
    receiver.answerNext((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        seen = [String(request.headers["leasehold-signature"]), Buffer.concat(chunks)];
        response.end();
      });
    });
    await rotator.set(step());
    const [header, body] = seen!;
    expect(isSigned(header, body, KEY)).toBe(true);
    expect(isSigned(header, Buffer.concat([body, Buffer.from(" ")]), KEY)).toBe(false);
    expect(isSigned(header, body, "another-key-entirely")).toBe(false);
    expect(isSigned(header.replace(/t=\d+/, "t=1000000000"), body, KEY)).toBe(false);
    expect(JSON.parse(body.toString())).toMatchObject({
      step: "set",
      rotation: "rotations/secrets/team/app",
      generation: 1,
      candidate: { password: { text: "secret-of-the-candidate" } },
      parameters: { account: "app" },
      given_up: [],
    });
  });

  it("that makes the candidate itself is taken at its word, if it is one", async () => {
    const answer = (text: string) => receiver.answerNext((_request, response) => response.end(text));
    answer(JSON.stringify({ candidate: { token: { text: "made outside" }, blob: { bytes: "AAEC" } } }));
    const { data } = await rotator.create(step());
    expect(data.get("token")?.value.revealText()).toBe("made outside");
    expect([...data.get("blob")!.value.reveal()]).toEqual([0, 1, 2]);
    answer("{}");
    expect((await rotator.create(step())).data.get("password")?.value.revealText()).toMatch(/^[A-Za-z0-9]{32}$/);
    for (const bad of [
      "[]x",
      '{"candidate":[]}',
      '{"candidate":{"a":1}}',
      '{"candidate":{"a":{"text":"x","bytes":""}}}',
      `{"candidate":{"a":{"text":"${"x".repeat(66_000)}"}}}`,
    ]) {
      answer(bad);
      expect(await outcome(rotator.create(step())), bad.slice(0, 50)).toBe("TARGET_MISCONFIGURED malformed_answer");
    }
  });

  it.each([
    [302, "TARGET_UNAVAILABLE http_302"],
    [401, "TARGET_UNAVAILABLE http_401"],
    [409, "TARGET_MISCONFIGURED generation_passed"],
    [422, "TARGET_MISCONFIGURED refused"],
    [429, "TARGET_UNAVAILABLE http_429"],
    [500, "TARGET_UNAVAILABLE http_500"],
    [501, "TARGET_MISCONFIGURED not_implemented"],
  ])("status %i is %s; a redirect is not followed, and no text of the answer goes on", async (status, expected) => {
    receiver.answerNext((_request, response) =>
      response.writeHead(status, { location: `https://localhost:${receiver.port}/elsewhere` }).end('{"problem":"The Secret Is X"}'),
    );
    const before = receiver.steps.length;
    expect(await outcome(rotator.set(step()))).toBe(expected);
    expect(receiver.steps.length).toBe(before);
  });

  it("that answers too much, too slowly, or a test with nothing, is no success", async () => {
    receiver.answerNext((_request, response) => response.end("x".repeat(300_000)));
    expect(await outcome(rotator.set(step()))).toBe("TARGET_MISCONFIGURED answer_too_large");
    receiver.answerNext((_request, response) => response.write("{"));
    expect(await outcome(rotator.set({ ...step(), signal: AbortSignal.timeout(300) }))).toBe("TARGET_UNAVAILABLE unreachable");
    receiver.answerNext((_request, response) => response.end());
    expect(await outcome(rotator.test(step()))).toBe("TARGET_MISCONFIGURED malformed_answer");
    receiver.answerNext((_request, response) => response.end('{"works":"yes"}'));
    expect(await outcome(rotator.test(step()))).toBe("TARGET_MISCONFIGURED malformed_answer");
  });

  it("whose certificate does not pass, or without a key to sign with, is sent nothing", async () => {
    const before = receiver.steps.length;
    expect(await outcome(rotator.set(step({ caPem: undefined })))).toBe("TARGET_UNAVAILABLE tls");
    expect(await outcome(rotator.set(step({ signingSecret: "secrets/ops/short" })))).toBe("TARGET_MISCONFIGURED signing_key");
    expect(await outcome(rotator.set(step({ signingSecret: "secrets/ops/empty" })))).toBe("TARGET_MISCONFIGURED signing_key");
    expect(await outcome(rotator.set({ ...step(), deadlineAt: Date.now() - 1 }))).toBe("TARGET_UNAVAILABLE deadline_passed");
    expect(receiver.steps.length).toBe(before);
  });

  it.each([
    [{ url: "http://hooks.acme.test/x" }, "url"],
    [{ url: "ftp://acme.test/" }, "url"],
    [{ url: "https://user:pw@acme.test/" }, "url"],
    [{ url: "https://acme.test/#x" }, "url"],
    [{ url: "nonsense" }, "url"],
    [{ url: "http://127.0.0.1:1/", caPem: "x" }, "ca_pem"],
    [{ signingSecret: "targets/x" }, "signing_secret"],
    [{ timeoutMs: 61_000 }, "timeout"],
    [{ parameters: { "a b": "x" } }, "parameters"],
    [{ field: "" }, "field"],
  ])("a bad configuration %j names %s", (change, field) => {
    expect(webhook.check({ ...base, url: "https://acme.test/x", caPem: undefined, ...change }).map((violation) => violation.field)).toEqual([field]);
  });

  it("may be plain on the loopback address alone", () => {
    for (const url of ["http://127.0.0.1:80/", "http://[::1]/x", "http://localhost:1/"])
      expect(webhook.check({ ...base, url, caPem: undefined }), url).toEqual([]);
    for (const url of ["http://127.0.0.1.acme.test/", "http://0.0.0.0/", "http://169.254.169.254/"])
      expect(webhook.check({ ...base, url, caPem: undefined }), url).toHaveLength(1);
  });
});
