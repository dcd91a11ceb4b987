import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { stringify } from "yaml";
import { startLocalPostgres } from "../src/dev/local-postgres.ts";
import { DEV_TRUST_DOMAIN, ensureDevPki } from "../src/dev/pki.ts";
import { BatchGetSecretsRequestSchema, GetSecretRequestSchema, SecretService } from "../src/gen/leasehold/v1/secret_service_pb.ts";
import { PolicyService } from "../src/gen/leasehold/v1/policy_service_pb.ts";
import { startChild } from "./child.ts";
import { encode, pathOf, Wire } from "./wire.ts";

const SECRETS = 200;
const SECRET_BYTES = 256;
const POLICIES = 10;
const RULES_EACH = 100;
const BATCH = 100;

/** A method to be called: its path and requests to take in turn. */
export interface Calls {
  readonly method: string;
  readonly requests: readonly string[];
}

/** What the servers of the benches share: a PostgreSQL with fsync on, certificates, 1,000 rules, 200 secrets, and the answers to be echoed. */
export interface World {
  readonly postgres: number;
  readonly tls: { readonly ca: string; readonly certificate: string; readonly key: string };
  /** The file with one answer of each method. */
  readonly answers: string;
  readonly getSecret: Calls;
  readonly batchGet: Calls;
  /** Writes a configuration of the broker. */
  config(audit: "durable" | "async"): string;
  stop(): Promise<void>;
}

export async function makeWorld(): Promise<World> {
  const folder = mkdtempSync(join(tmpdir(), "leasehold-bench-"));
  const pki = await ensureDevPki(join(folder, "pki"));
  const postgres = await startLocalPostgres({
    dataDir: join(folder, "postgres"),
    password: randomBytes(16).toString("hex"),
    settings: { shared_buffers: "128MB" },
  });
  await createDatabase(postgres.url("postgres"));
  const config = (audit: "durable" | "async"): string => {
    const file = join(folder, `${audit}.yaml`);
    const settings = {
      listen: "127.0.0.1:0",
      log: { level: "warn" },
      store: { url: postgres.url("leasehold") },
      kms: { provider: "file", file: join(folder, "kms.key"), create: true },
      tls: { certificate: pki.server.certificate, key: pki.server.key, trust: [{ trust_domain: DEV_TRUST_DOMAIN, bundle: pki.ca }] },
      audit: { reads: audit },
      administrators: [`spiffe://${DEV_TRUST_DOMAIN}/admin`],
    };
    writeFileSync(file, stringify(settings), { mode: 0o600 });
    return file;
  };
  const answers = join(folder, "answers.json");
  const requests = Array.from({ length: SECRETS }, (_, i) => ({ path: `secrets/demo/key-${i}` }));
  const getSecret = { method: pathOf(SecretService.method.getSecret), requests: requests.map((request) => text(encode(GetSecretRequestSchema, request))) };
  const batches = [requests.slice(0, BATCH), requests.slice(BATCH, 2 * BATCH)];
  const batchGet = {
    method: pathOf(SecretService.method.batchGetSecrets),
    requests: batches.map((batch) => text(encode(BatchGetSecretsRequestSchema, { requests: batch }))),
  };

  const broker = await startChild("broker-child.ts", { args: [config("durable")] });
  const { address } = broker.ready as { address: string };
  const admin = new Wire(address, pki.ca, pki.clients.admin);
  const app = new Wire(address, pki.ca, pki.clients["demo-app"]);
  await fill(admin);
  const answerOf = async ({ method, requests: [first] }: Calls): Promise<string> => text(await app.bytes(method, Buffer.from(first!, "base64")));
  writeFileSync(answers, JSON.stringify({ getSecret: await answerOf(getSecret), batchGetSecrets: await answerOf(batchGet) }), { mode: 0o600 });
  admin.close();
  app.close();
  await broker.stop();

  return {
    postgres: postgres.pid,
    tls: { ca: pki.ca, ...pki.clients["demo-app"] },
    answers,
    getSecret,
    batchGet,
    config,
    async stop() {
      await postgres.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function createDatabase(url: string): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  const { rows } = await client.query<{ fsync: string }>("show fsync");
  await client.query("create database leasehold");
  await client.end();
  if (rows[0]?.fsync !== "on") throw new Error("the benches' PostgreSQL must have fsync on");
}

/** Rules that all speak of the caller, and the secrets it may read. */
async function fill(admin: Wire): Promise<void> {
  for (let p = 0; p < POLICIES; p++) {
    const rules = Array.from({ length: RULES_EACH }, (_, r) => ({
      paths: [`secrets/team-${p}/app-${r}/${r % 10 === 0 ? "*/" : ""}config`],
      allow: ["read", "list"],
    }));
    if (p === 0) rules[0] = { paths: ["secrets/{ns}/**"], allow: ["read", "list"] };
    const policy = { name: `bench-${p}`, principals: [`spiffe://${DEV_TRUST_DOMAIN}/ns/{ns}/sa/app`], rules };
    await admin.call(PolicyService.method.putPolicy, { policy });
  }
  for (let i = 0; i < SECRETS; i++) {
    const value = { kind: { case: "bytes" as const, value: new Uint8Array(randomBytes(SECRET_BYTES)) } };
    await admin.call(SecretService.method.putSecret, { path: `secrets/demo/key-${i}`, data: { value } });
  }
}

function text(bytes: Buffer): string {
  return bytes.toString("base64");
}
