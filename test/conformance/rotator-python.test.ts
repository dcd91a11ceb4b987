import { pbkdf2Sync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isReason } from "../../src/base/errors.ts";
import type { SecretData } from "../../src/model/secret.ts";
import type { GrpcConfig } from "../../src/rotation/grpc/config.ts";
import { grpc } from "../../src/rotation/grpc/definition.ts";
import type { CandidateStep } from "../../src/rotation/rotator.ts";
import { ACME, authority, identity, type LeafName, writeIdentity } from "../support/pki.ts";
import { type Program, startProgram } from "../support/process.ts";
import { pythonWith } from "../support/python.ts";
import { dataOf, outsideHost } from "../support/rotators.ts";
import { tcpProxy } from "../support/tcp-proxy.ts";
import { tempFolder } from "../support/temp.ts";
import { rotatorConformance } from "./rotator.ts";

const EXAMPLE = resolve("examples/rotator-python");
const SERVICE = `spiffe://${ACME}/leasehold`; // of the leaf `server`
const BROKER = `spiffe://${ACME}/admin`;

interface Service {
  readonly port: number;
  readonly program: Program;
  /** As the web server that reads the file would. */
  accepts(data: SecretData): boolean;
}

/** The example of examples/rotator-python with an account whose password is `first`. */
async function startService(first: string, cert: LeafName = "server"): Promise<Service> {
  const python = pythonWith(join(EXAMPLE, "requirements.txt"));
  const folder = tempFolder("leasehold-python-");
  const { certificate, key } = writeIdentity(folder, "service", await identity(cert));
  const [ca, accounts] = [join(folder, "ca.crt"), join(folder, "accounts.json")];
  writeFileSync(ca, (await authority("acme")).certificatePem);
  const salt = Buffer.alloc(16, 7);
  writeFileSync(accounts, JSON.stringify({ app: { generation: 0, passwords: [{ salt: salt.toString("hex"), hash: derive(first, salt) }] } }), { mode: 0o600 });
  const flags = { proto: resolve("proto"), accounts, listen: "127.0.0.1:0", certificate, key, ca, broker: BROKER };
  const program = startProgram(python, [join(EXAMPLE, "rotator.py"), ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value])], {
    keep: true,
  });
  const [, port] = await program.says(/listening on (\d+)/, 60_000);
  return {
    port: Number(port),
    program,
    accepts(data) {
      const stored = JSON.parse(readFileSync(accounts, "utf8")) as { app: { passwords: { salt: string; hash: string }[] } };
      const password = data.get("password")!.value.revealText();
      return stored.app.passwords.some(({ salt: hex, hash }) => derive(password, Buffer.from(hex, "hex")) === hash);
    },
  };
}

function derive(password: string, salt: Buffer): string {
  return pbkdf2Sync(password, salt, 10_000, 32, "sha256").toString("hex");
}

async function clientSecrets() {
  const of = async (name: LeafName) => {
    const { certificatePem, keyPem } = await identity(name);
    return dataOf({ certificate: certificatePem, key: keyPem });
  };
  return {
    "secrets/ops/client": await of("admin"),
    "secrets/ops/other": await of("app"),
    "secrets/ops/foreign": await of("foreignCa"),
    "secrets/ops/none": dataOf({ x: "y" }),
  };
}

const configOf = async (port: number): Promise<GrpcConfig> => ({
  address: `127.0.0.1:${port}`,
  caPem: (await authority("acme")).certificatePem,
  spiffeId: SERVICE,
  clientSecret: "secrets/ops/client",
  timeoutMs: 10_000,
  parameters: { account: "app" },
  field: "password",
  passwordPolicy: undefined,
});

rotatorConformance("grpc, against the example in Python,", async () => {
  const service = await startService("the-first-password");
  const proxy = await tcpProxy(service.port);
  return {
    definition: grpc,
    config: await configOf(proxy.port),
    host: outsideHost(await clientSecrets()),
    initial: dataOf({ password: "the-first-password", note: "kept" }),
    async login(data) {
      if (!service.accepts(data)) throw new Error("not accepted");
    },
    proxy,
    currentAlwaysWorks: true,
    async stop() {
      await proxy.stop();
      await service.program.killTree();
    },
  };
});

describe("the gRPC rotator", () => {
  let service: Service;
  let base: GrpcConfig;
  let set: (more: Partial<GrpcConfig>) => Promise<string>;
  const candidate = dataOf({ password: "the-candidate" });

  beforeAll(async () => {
    service = await startService("first");
    base = await configOf(service.port);
    const rotator = grpc.open(outsideHost(await clientSecrets()));
    set = async (more) => {
      const step: CandidateStep<GrpcConfig> = {
        path: "secrets/team/app",
        rotationUid: "u",
        config: { ...base, ...more },
        generation: 1,
        candidateId: "u:1",
        deadlineAt: Date.now() + 20_000,
        signal: AbortSignal.timeout(20_000),
        traceId: "",
        current: undefined,
        version: 1,
        candidate,
        previous: undefined,
        givenUp: [],
      };
      return rotator.set(step).then(
        () => "ok",
        (error: unknown) => (isReason(error, "TARGET_UNAVAILABLE", "TARGET_MISCONFIGURED") ? `${error.reason} ${error.metadata["problem"]}` : String(error)),
      );
    };
  }, 240_000);
  afterAll(() => service?.program.killTree());

  it("tells nothing to a service that is not the one with the SPIFFE id, or whose certificate another CA has made", async () => {
    expect(await set({ spiffeId: `spiffe://${ACME}/leasehold2` })).toBe("TARGET_UNAVAILABLE identity_refused");
    expect(await set({ caPem: (await authority("beta")).certificatePem })).toMatch(/^TARGET_UNAVAILABLE /);
    expect(service.accepts(candidate)).toBe(false);
  });

  it("is refused by the service as somebody else, with another CA's certificate, or with none", async () => {
    expect(await set({ clientSecret: "secrets/ops/other" })).toBe("TARGET_UNAVAILABLE not_allowed");
    expect(await set({ clientSecret: "secrets/ops/foreign" })).toMatch(/^TARGET_UNAVAILABLE /);
    expect(await set({ clientSecret: "secrets/ops/none" })).toBe("TARGET_MISCONFIGURED client_certificate");
    expect(service.accepts(candidate)).toBe(false);
  });

  it("hands the parameters on, and takes the service's no for one", async () => {
    expect(await set({ parameters: { account: "nobody" } })).toBe("TARGET_MISCONFIGURED refused");
    expect(await set({ parameters: {} })).toBe("TARGET_MISCONFIGURED refused");
    expect(await set({})).toBe("ok");
    expect(service.accepts(candidate)).toBe(true);
  });

  it.each([
    [{ address: "nowhere" }, "address"],
    [{ address: "https://x:1" }, "address"],
    [{ caPem: "x" }, "ca_pem"],
    [{ spiffeId: "https://acme.test/x" }, "spiffe_id"],
    [{ clientSecret: "x" }, "client_secret"],
  ])("a bad configuration %j names %s", (change, field) => {
    expect(grpc.check({ ...base, ...change }).map((violation) => violation.field)).toEqual([field]);
  });
});
