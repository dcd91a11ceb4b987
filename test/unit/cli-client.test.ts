import { Metadata, status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { EXIT, explain } from "../../src/cli/exit.ts";
import { Client } from "../../src/client/client.ts";
import { CallError } from "../../src/client/errors.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { grpcError } from "../../src/rpc/status.ts";
import { clientAt, rpc, startLine, startServer, startTls12 } from "../support/cli-peer.ts";
import { bundle, identity } from "../support/pki.ts";

const { putSecret } = SecretService.method;
const request = { path: "secrets/a/b", requestId: "6f0c2f5e-0000-4000-8000-000000000000" };

/** How a call ended. */
async function failure(call: Promise<unknown>): Promise<CallError> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(CallError);
  return error as CallError;
}

function said(error: unknown): { readonly code: number; readonly text: string } {
  const lines: string[] = [];
  const code = explain(error, (line) => lines.push(line));
  return { code, text: lines.join("\n") };
}

describe("the client", () => {
  it("tries an unavailable broker again, at its pace, with the same request id", async () => {
    const ids: string[] = [];
    const { port, server } = await startServer([
      rpc(putSecret, ({ requestId }, answer) => {
        ids.push(requestId);
        if (ids.length < 3) answer(grpcError(new LeaseholdError("STORE_UNAVAILABLE", "x", { retryAfterMs: 5 }), "r"));
        else answer(null, { path: "secrets/a/b" });
      }),
    ]);
    const client = await clientAt(port);
    expect((await client.call(putSecret, request)).path).toBe("secrets/a/b");
    expect(ids).toEqual([request.requestId, request.requestId, request.requestId]);
    client.close();
    server.forceShutdown();
  });

  it("tries a call again whose connection broke, with the same request id: it may or may not have been done", async () => {
    const ids: string[] = [];
    const { port, server } = await startServer([
      rpc(putSecret, ({ requestId }, answer) => {
        ids.push(requestId);
        if (ids.length === 1) line.cut();
        else answer(null, { path: "secrets/a/b" });
      }),
    ]);
    const line = await startLine(port);
    const client = await clientAt(line.port);
    expect((await client.call(putSecret, request)).path).toBe("secrets/a/b");
    expect(ids).toEqual([request.requestId, request.requestId]);
    client.close();
    server.forceShutdown();
    line.close();
  });

  it("fails at once where nothing listens, and points to doctor", async () => {
    const client = await clientAt(1, 600_000); // a client that went on trying would outlast this test
    const error = await failure(client.call(putSecret, request));
    client.close();
    expect(said(error)).toEqual({
      code: EXIT.unavailable,
      text: expect.stringMatching(/^error: UNAVAILABLE: connect ECONNREFUSED 127\.0\.0\.1:1\n.*doctor/) as string,
    });
  });

  it("speaks TLS 1.3 and nothing older, and says so without OpenSSL's file names", async () => {
    const { port, server } = await startTls12();
    const client = await clientAt(port);
    const error = await failure(client.call(putSecret, request));
    client.close();
    server.close();
    expect(said(error).text).toMatch(/^error: UNAVAILABLE: TLS: .*protocol version\n/);
  });

  it("is refused with another CA's certificate, promptly and in words", async () => {
    const { port, server } = await startServer([rpc(putSecret, (_request, answer) => answer(null, {}))]);
    const [{ certificatePem, keyPem }, ca] = await Promise.all([identity("foreignCa"), bundle("acme")]);
    const client = new Client({ address: `127.0.0.1:${port}`, certificate: certificatePem, key: keyPem, ca, serverName: "localhost" }, 600_000);
    const { code, text } = said(await failure(client.call(putSecret, request)));
    client.close();
    server.forceShutdown();
    expect(code).toBe(EXIT.unavailable);
    expect(text).toContain("doctor");
    expect(text).not.toContain("    at ");
  });

  it("survives error details that are cut off", async () => {
    const metadata = new Metadata();
    metadata.set("grpc-status-details-bin", Buffer.from([0xff, 0xff, 0xff]));
    const { port, server } = await startServer([rpc(putSecret, (_request, answer) => answer({ code: status.ABORTED, details: "cut", metadata }))]);
    const client = await clientAt(port);
    const error = await failure(client.call(putSecret, request));
    client.close();
    server.forceShutdown();
    expect([error.code, error.reason, said(error).code]).toEqual([status.ABORTED, "", EXIT.conflict]);
  });

  it("gives up at its timeout on a broker that does not answer", async () => {
    const { port, server } = await startServer([rpc(putSecret, () => {})]);
    const client = await clientAt(port, 300);
    const error = await failure(client.call(putSecret, request));
    client.close();
    server.forceShutdown();
    expect([error.code, said(error).code]).toEqual([status.DEADLINE_EXCEEDED, EXIT.unavailable]);
  });
});
