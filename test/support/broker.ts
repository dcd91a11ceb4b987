import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { startApp } from "../../src/app.ts";
import { Client } from "../../src/client/client.ts";
import { parseConfig } from "../../src/config.ts";
import { PolicyService } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { bundle, identity, type LeafName, writeIdentity } from "./pki.ts";
import { freshDatabase, type TestDatabase } from "./postgres.ts";
import { type Program, startProgram } from "./process.ts";
import { tempFolder } from "./temp.ts";

export const APP = "spiffe://acme.test/ns/payments/sa/app";

/** A whole broker in this process, on a port of its own. */
export interface TestBroker {
  readonly address: string;
  as(name: LeafName): Client;
  stop(): Promise<void>;
}

export interface SpawnedBroker extends TestBroker {
  readonly program: Program;
}

export interface BrokerOptions {
  /** Settings of the configuration file beside or instead of the usual ones. */
  readonly settings?: Readonly<Record<string, unknown>>;
  readonly env?: NodeJS.ProcessEnv;
}

/** A store with a PKI, on which brokers are started: one or several replicas. */
export interface TestWorld {
  readonly store: TestDatabase;
  readonly folder: string;
  readonly kmsKey: string;
  start(options?: BrokerOptions): Promise<TestBroker>;
  /** In a process of its own, to be killed or frozen; its log is in the program's output. */
  spawn(options?: Pick<BrokerOptions, "settings">): Promise<SpawnedBroker>;
  close(): Promise<void>;
}

const NAMES = ["admin", "app", "otherApp"] as const;

export async function testWorld(): Promise<TestWorld> {
  const store = await freshDatabase("migrated");
  const folder = tempFolder("broker");
  const server = writeIdentity(folder, "server", await identity("server"));
  const caPem = await bundle("acme");
  writeFileSync(join(folder, "ca.pem"), caPem);
  const identities = new Map(await Promise.all(NAMES.map(async (name) => [name as LeafName, await identity(name)] as const)));
  const running = new Set<TestBroker>();
  const kmsKey = join(folder, "kms.key");
  const configText = (settings: Readonly<Record<string, unknown>>): string =>
    stringify({
      listen: "127.0.0.1:0",
      log: { level: "silent" },
      store: { url: store.url, allow_no_fsync: true },
      kms: { provider: "file", file: kmsKey, create: true },
      tls: { certificate: server.certificate, key: server.key, trust: [{ trust_domain: "acme.test", bundle: join(folder, "ca.pem") }] },
      drain: "2s",
      administrators: ["spiffe://acme.test/admin"],
      ...settings,
    });
  const brokerAt = (address: string, stop: () => Promise<void>): TestBroker => {
    const clients = new Map<string, Client>();
    const broker: TestBroker = {
      address,
      as(name) {
        const known = clients.get(name);
        if (known !== undefined) return known;
        const { certificatePem: certificate, keyPem: key } = identities.get(name)!;
        const client = new Client({ address, certificate, key, ca: caPem, serverName: "localhost" }, 20_000);
        clients.set(name, client);
        return client;
      },
      stop: async () => {
        running.delete(broker);
        for (const client of clients.values()) client.close();
        await stop();
      },
    };
    running.add(broker);
    return broker;
  };
  return {
    store,
    folder,
    kmsKey,
    async start({ settings = {}, env = {} } = {}) {
      const app = await startApp(parseConfig(configText(settings), {}, folder), env);
      return brokerAt(app.address, () => app.stop());
    },
    async spawn({ settings = {} } = {}) {
      const file = join(folder, `config-${randomBytes(4).toString("hex")}.yaml`);
      writeFileSync(file, configText({ log: { level: "info" }, ...settings }));
      const program = startProgram(process.execPath, [join(import.meta.dirname, "../../src/main.ts"), "server", "--config", file], { keep: true });
      const [, address] = await program.says(/"address":"([^"]+)"/);
      return Object.assign(
        brokerAt(address!, () => program.killTree()),
        { program },
      );
    },
    async close() {
      await Promise.all([...running].map((broker) => broker.stop()));
      await store.drop();
    },
  };
}

/** Lets `app` read, list and watch what is below `secrets/payments/`. */
export async function allowApp(broker: TestBroker, ...allow: string[]): Promise<void> {
  const rules = [{ paths: ["secrets/payments/**"], allow: allow.length > 0 ? allow : ["read", "describe", "list", "watch"] }];
  await broker.as("admin").call(PolicyService.method.putPolicy, { policy: { name: "app", principals: [APP], rules } });
}

/** A secret's data of texts. */
export function texts(data: Readonly<Record<string, string>>) {
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, { kind: { case: "text" as const, value } }]));
}
