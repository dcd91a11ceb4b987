import { readdirSync, readFileSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const SRC = resolve(import.meta.dirname, "../../src");

/**
 * Who may import whom (docs/architecture.md); type imports count. A name ending in `/x` is a leaf plug-in, known to its folder's registry alone.
 */
const MAY: Readonly<Record<string, readonly string[]>> = {
  base: [],
  gen: [],
  model: ["base"],
  store: ["model", "base"],
  kms: ["base"],
  crypto: ["kms", "store", "model", "base"],
  engines: ["model", "base"],
  identity: ["store", "crypto", "model", "base"],
  policy: ["store", "crypto", "model", "base"],
  audit: ["kms", "store", "crypto", "model", "base"],
  schedule: ["store", "crypto", "model", "base"],
  catalog: ["policy", "audit", "schedule", "engines", "crypto", "store", "model", "base"],
  operations: ["audit", "schedule", "crypto", "store", "model", "base"],
  // The stored form of a secret is a message of leasehold.internal.v1.
  secrets: ["gen", "policy", "audit", "schedule", "engines", "crypto", "store", "model", "base"],
  leases: ["catalog", "operations", "policy", "audit", "schedule", "engines", "crypto", "store", "model", "base"],
  // `gen` and `identity` for the one rotator that calls a service of the published protocol, and must know who it is (below).
  rotation: ["gen", "identity", "catalog", "secrets", "policy", "audit", "schedule", "engines", "crypto", "store", "model", "base"],
  watch: ["policy", "audit", "schedule", "crypto", "store", "model", "base"],
  subscriptions: ["schedule", "crypto", "store", "model", "base"],
  telemetry: ["base"],
  rpc: [
    "gen",
    "identity",
    "policy",
    "audit",
    "secrets",
    "leases",
    "rotation",
    "catalog",
    "operations",
    "watch",
    "subscriptions",
    "engines",
    "kms",
    "crypto",
    "store",
    "telemetry",
    "model",
    "base",
  ],
  client: ["gen", "base"],
  dev: ["app", "config", "client", "gen", "engines", "kms", "store", "model", "base"],
  cli: ["client", "gen", "base"],
};
/** Where the command reaches beyond the wire: running a server, preparing its database, preparing a target. */
const CLI_MAY_LOAD = ["app", "config", "dev", "store", "engines", "kms"];
const LEAVES = /^(engines|kms|rotation|subscriptions)\/([^/]+)\//;

interface Import {
  readonly from: string;
  readonly to: string;
  readonly dynamic: boolean;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(resolve(SRC, file), "utf8");
  const found = [...text.matchAll(/(?:from\s+|import\s+|(import)\()"(\.[^"]+)"/g)];
  return found.map((match) => ({ from: file, to: relative(SRC, resolve(SRC, dirname(file), match[2]!)), dynamic: match[1] !== undefined }));
}

const files = readdirSync(SRC, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts") && !file.startsWith("gen/"));
const imports = files.flatMap(importsOf);
const folder = (file: string): string => (file.includes("/") ? file.slice(0, file.indexOf("/")) : file.replace(/\.ts$/, ""));

describe("architecture", () => {
  it("has every folder in the table", () => {
    const folders = new Set(files.filter((file) => file.includes("/")).map(folder));
    expect([...folders].filter((name) => MAY[name] === undefined)).toEqual([]);
    expect(files.length).toBeGreaterThan(100);
    expect(imports.length).toBeGreaterThan(300);
  });

  it("imports one way", () => {
    const wrong = imports.filter(({ from, to, dynamic }) => {
      const [own, other] = [folder(from), folder(to)];
      if (own === other || !from.includes("/")) return false;
      return !MAY[own]!.includes(other) && !(own === "cli" && dynamic && CLI_MAY_LOAD.includes(other));
    });
    expect(wrong.map(({ from, to }) => `${from} → ${to}`)).toEqual([]);
  });

  it("knows a leaf plug-in in its registry alone", () => {
    const wrong = imports.filter(({ from, to }) => {
      const leaf = LEAVES.exec(to);
      return leaf !== null && !from.startsWith(leaf[0]) && from !== `${leaf[1]}/registry.ts`;
    });
    expect(wrong.map(({ from, to }) => `${from} → ${to}`)).toEqual([]);
  });

  it("keeps SQLSTATE in the store and gRPC codes in rpc", () => {
    const grpc = files.filter((file) => /from "@grpc\/grpc-js"/.test(readFileSync(resolve(SRC, file), "utf8"))).map(folder);
    expect([...new Set(grpc)].filter((name) => !["rpc", "client", "cli", "dev", "rotation"].includes(name))).toEqual([]);
    // In `rotation` one leaf alone speaks gRPC and knows generated messages.
    const speaking = imports
      .filter(({ from, to }) => from.startsWith("rotation/") && (to.startsWith("gen/") || to.startsWith("identity/")))
      .map(({ from }) => from);
    expect(speaking.filter((from) => !from.startsWith("rotation/grpc/"))).toEqual([]);
  });

  it("has no file over 400 lines", () => {
    expect(files.filter((file) => readFileSync(resolve(SRC, file), "utf8").split("\n").length > 400)).toEqual([]);
  });
});
