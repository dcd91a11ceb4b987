import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Metadata, status } from "@grpc/grpc-js";
import { afterAll, describe, expect, it } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { CallError } from "../../src/client/errors.ts";
import { parseTime } from "../../src/cli/context.ts";
import { parseData } from "../../src/cli/data.ts";
import { checkCertificate } from "../../src/cli/doctor.ts";
import { explain, UsageError } from "../../src/cli/exit.ts";
import { parseManifests } from "../../src/cli/manifest.ts";
import { endpointOf } from "../../src/client/settings.ts";
import { grpcError } from "../../src/rpc/status.ts";

const folder = mkdtempSync(join(tmpdir(), "leasehold-cli-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const file = (name: string, text: string | Uint8Array): string => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};

describe("secret data on the command line", () => {
  it("takes text, files and standard input, and tells text from bytes", () => {
    const raw = file("raw", Uint8Array.of(0xff, 0x00, 0xfe));
    const text = file("text", "line\n");
    const data = parseData(["a=b=c", `f=@${text}`, `r=@${raw}`, "s=-", "empty="], () => Buffer.from("piped"));
    expect(data).toEqual({
      a: { kind: { case: "text", value: "b=c" } },
      f: { kind: { case: "text", value: "line\n" } },
      r: { kind: { case: "bytes", value: Uint8Array.of(0xff, 0x00, 0xfe) } },
      s: { kind: { case: "text", value: "piped" } },
      empty: { kind: { case: "text", value: "" } },
    });
  });

  it.each([
    ["no equals sign", ["hunter2"]],
    ["no key", ["=hunter2"]],
    ["twice", ["a=hunter2", "a=x"]],
    ["standard input twice", ["a=-", "b=-"]],
    ["a file that is not there", ["a=@/nowhere"]],
  ])("refuses %s, without quoting a value", (_name, pairs) => {
    expect(() => parseData(pairs, () => Buffer.from("hunter2"))).toThrow(UsageError);
    expect(() => parseData(pairs, () => Buffer.from("hunter2"))).not.toThrow(/hunter2/);
  });
});

describe("connection settings", () => {
  const pem = file("pem", "PEM");
  const dev = join(folder, "project", ".leasehold");
  mkdirSync(join(dev, "pki"), { recursive: true });
  mkdirSync(join(folder, "project", "deep", "down"), { recursive: true });
  for (const name of ["ca.crt", "admin.crt", "admin.key", "app.crt", "app.key"]) writeFileSync(join(dev, "pki", name), name);
  const clients = { admin: { cert: "pki/admin.crt", key: "pki/admin.key" }, "demo-app": { cert: "pki/app.crt", key: "pki/app.key" } };
  writeFileSync(join(dev, "dev.json"), JSON.stringify({ address: "127.0.0.1:1", ca: "pki/ca.crt", clients }));
  const below = join(folder, "project", "deep", "down");
  const noHome = { LEASEHOLD_CONFIG: undefined };

  it("finds the development broker of a folder above, as admin unless said otherwise", () => {
    expect(endpointOf({}, noHome, below)).toEqual({
      address: "127.0.0.1:1",
      ca: join(dev, "pki", "ca.crt"),
      certificate: join(dev, "pki", "admin.crt"),
      key: join(dev, "pki", "admin.key"),
      serverName: "localhost",
    });
    expect(endpointOf({ as: "demo-app" }, noHome, below).certificate).toBe(join(dev, "pki", "app.crt"));
    expect(() => endpointOf({ as: "nobody" }, noHome, below)).toThrow(/admin, demo-app/);
  });

  it("flags win over variables, those over a context, that over the development broker", () => {
    const config = file("config.yaml", `current: one\ncontexts:\n  one: { address: "ctx:1", cert: pem, key: pem, ca: pem }\n`);
    const env = { LEASEHOLD_CONFIG: config };
    expect(endpointOf({}, env, below).address).toBe("ctx:1");
    expect(endpointOf({}, { ...env, LEASEHOLD_ADDRESS: "env:1" }, below).address).toBe("env:1");
    expect(endpointOf({ address: "flag:1", cert: pem }, { ...env, LEASEHOLD_ADDRESS: "env:1" }, below)).toMatchObject({
      address: "flag:1",
      certificate: pem,
    });
    expect(() => endpointOf({ context: "two" }, env, below)).toThrow(/no context two/);
  });

  it("says what is missing where nothing is configured", () => {
    expect(() => endpointOf({}, noHome, tmpdir())).toThrow(/npm start/);
  });
});

describe("exit codes and error texts", () => {
  const call = (reason: ConstructorParameters<typeof LeaseholdError>[0], options = {}): CallError => {
    const { code, details, metadata } = grpcError(new LeaseholdError(reason, "internal words", options), "request-1");
    return new CallError(Object.assign(new Error("rpc"), { code, details, metadata }));
  };
  const said = (error: unknown): { code: number; text: string } => {
    const lines: string[] = [];
    const code = explain(error, (line) => lines.push(line));
    return { code, text: lines.join("\n") };
  };

  it.each([
    ["REQUEST_INVALID", 2],
    ["SECRET_NOT_FOUND", 3],
    ["PERMISSION_DENIED", 4],
    ["CERTIFICATE_EXPIRED", 4],
    ["STORE_UNAVAILABLE", 5],
    ["RATE_LIMITED", 5],
    ["VERSION_MISMATCH", 6],
    ["VERSION_DELETED", 6],
    ["INTERNAL", 1],
  ] as const)("%s exits with %i", (reason, code) => {
    expect(said(call(reason)).code).toBe(code);
  });

  it("shows reason, metadata, violations and the request id, and no stack", () => {
    const { text } = said(call("REQUEST_INVALID", { violations: [{ field: "ttl", description: "must be at least 1 s" }], metadata: { maximum: "600s" } }));
    expect(text).toContain("REQUEST_INVALID");
    expect(text).toContain("ttl must be at least 1 s");
    expect(text).toContain("maximum: 600s");
    expect(text).toContain("request-1");
    expect(text).not.toContain("    at ");
    expect(text).not.toContain("internal words");
  });

  it("points to doctor when no broker answers, and knows usage and plain failures", () => {
    const refused = Object.assign(new Error("x"), {
      code: status.UNAVAILABLE,
      details: "No connection established",
      metadata: new Metadata(),
    });
    expect(said(new CallError(refused))).toMatchObject({ code: 5, text: expect.stringContaining("doctor") as string });
    expect(said(new UsageError("wrong"))).toEqual({ code: 2, text: "error: wrong" });
    expect(said(new LeaseholdError("IN_USE", "127.0.0.1:8443 is already in use"))).toEqual({ code: 1, text: "error: 127.0.0.1:8443 is already in use" });
  });
});

describe("manifests", () => {
  it("reads several documents of a file", () => {
    const found = parseManifests("kind: Policy\nname: a\n---\n---\nkind: Role\npath: credentials/postgres/x\n", "f.yaml");
    expect(found.map(({ kind, body }) => [kind, body])).toEqual([
      ["Policy", { name: "a" }],
      ["Role", { path: "credentials/postgres/x" }],
    ]);
  });

  it.each(["kind: Nothing\n", "name: a\n", "kind: [\n"])("refuses %j, naming file and document", (text) => {
    expect(() => parseManifests(text, "f.yaml")).toThrow(/f\.yaml document 1/);
  });

  it("does not let a small file grow large", () => {
    const bomb = `a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nkind: Policy\n`;
    expect(() => parseManifests(bomb, "f.yaml")).toThrow();
  });
});

it("reads lengths of time", () => {
  expect(["250ms", "90s", "10m", "1h", "7d"].map((text) => parseTime(text, "--ttl"))).toEqual([250, 90_000, 600_000, 3_600_000, 604_800_000]);
  for (const text of ["", "5", "s", "-1s", "1.5h", "1y"]) expect(() => parseTime(text, "--ttl")).toThrow(/--ttl/);
});

it("doctor says what is wrong with a certificate that is none", () => {
  expect(checkCertificate({ certificate: "nonsense", key: "nonsense" })).toEqual([{ name: "client certificate", problem: "is not a PEM certificate" }]);
});
