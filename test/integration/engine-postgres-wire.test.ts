import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { isReason } from "../../src/base/errors.ts";
import { Sensitive } from "../../src/base/sensitive.ts";
import { postgres } from "../../src/engines/postgres/definition.ts";
import { OPTIONS } from "../conformance/engine.ts";

const PASSWORD = "canaryPassword0123456789canary00";
const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** A server that answers the start-up message with `answer` and keeps all that it is sent. */
async function fakeServer(answer: Buffer): Promise<{ port: number; received: () => Buffer; gone: Promise<void> }> {
  const chunks: Buffer[] = [];
  let over: () => void;
  const gone = new Promise<void>((resolve) => (over = resolve));
  const server = createServer((socket: Socket) => {
    let started = false;
    socket.on("error", () => {});
    socket.on("close", () => over());
    socket.on("data", (chunk) => {
      chunks.push(chunk);
      if (!started) socket.write(answer);
      started = true;
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: (server.address() as AddressInfo).port, received: () => Buffer.concat(chunks), gone };
}

function message(type: string, ...parts: readonly (number | string | Buffer)[]): Buffer {
  const body = Buffer.concat(
    parts.map((part) => {
      if (typeof part === "string") return Buffer.from(part);
      if (Buffer.isBuffer(part)) return part;
      const int = Buffer.alloc(4);
      int.writeInt32BE(part);
      return int;
    }),
  );
  const head = Buffer.alloc(5);
  head.write(type);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

const READY = message("Z", "I");
const ANSWERS: Readonly<Record<string, Buffer>> = {
  "the password in clear": message("R", 3),
  "the password's MD5": message("R", 5, Buffer.from([1, 2, 3, 4])),
  "nothing at all": Buffer.concat([message("R", 0), READY]),
  "nothing, without even saying so": READY,
  "clear text after a pretended success": Buffer.concat([message("R", 0), message("R", 3), READY]),
  "a SCRAM end without a SCRAM start": Buffer.concat([message("R", 12, "v=AAAA"), message("R", 0), READY]),
  "another SASL mechanism": message("R", 10, "PLAIN\0\0"),
};

for (const [asked, answer] of Object.entries(ANSWERS)) {
  test(`finding 23: a server that asks for ${asked} gets neither password nor statement`, async () => {
    const server = await fakeServer(answer);
    const target = open(server.port);
    await expect(target.identify()).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "authentication_refused" } });
    await server.gone;
    const received = server.received();
    expect(received.toString("latin1")).toContain("leasehold_x"); // it did get as far as the start-up message
    expect(received.includes(PASSWORD)).toBe(false);
    expect(received.subarray(received.readInt32BE(0)).length).toBe(0); // and nothing came after it
    const checks = await target.preflight(undefined);
    expect(checks).toMatchObject([{ name: "connect", ok: false }]);
    expect(checks[0]!.detail).toContain("scram-sha-256");
    await target.close();
  });
}

test("a server that asks for an unreasonable number of iterations is refused before the work", async () => {
  const server = createServer((socket) => {
    let step = 0;
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      if (step++ === 0) return void socket.write(message("R", 10, "SCRAM-SHA-256\0\0"));
      const nonce = /r=([^,]+)$/.exec(chunk.toString("latin1"))?.[1];
      socket.write(message("R", 11, `r=${nonce}server,s=AAAAAAAAAAAAAAAAAAAAAA==,i=2000000000`));
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const target = open((server.address() as AddressInfo).port);
  await expect(target.identify()).rejects.toMatchObject({ metadata: { problem: "authentication_refused" } });
  await target.close();
});

for (const [what, answer] of Object.entries({
  "an unknown kind of authentication": message("R", 99),
  "a request for Kerberos": message("R", 7),
  garbage: Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"),
  "a broken error message": message("E", "S"),
})) {
  test(`a server that sends ${what} is an error, not the end of the process`, async () => {
    const server = await fakeServer(answer);
    const target = open(server.port);
    const error: unknown = await target.identify().catch((thrown: unknown) => thrown);
    expect(isReason(error, "TARGET_UNAVAILABLE", "TARGET_MISCONFIGURED")).toBe(true);
    expect(server.received().includes(PASSWORD)).toBe(false);
    await target.close();
  });
}

test("lesson 18: verify-full never falls back to clear text where the server has no TLS", async () => {
  const server = await fakeServer(Buffer.from("N"));
  const target = open(server.port, "verify-full");
  await expect(target.identify()).rejects.toMatchObject({ reason: "TARGET_MISCONFIGURED", metadata: { problem: "tls" } });
  expect(server.received().length).toBe(8); // the SSLRequest alone
  await target.close();
});

function open(port: number, mode: "verify-full" | "disable" = "disable"): ReturnType<typeof postgres.open> {
  const config = { host: "127.0.0.1", port, database: "app", username: "leasehold_x", tls: { mode } } as const;
  return postgres.open(config, Sensitive.text(PASSWORD), { ...OPTIONS, instance: "x", connectTimeoutMs: 1000 });
}
