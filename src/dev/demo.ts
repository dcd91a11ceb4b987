import pg from "pg";
import { LeaseholdError } from "../base/errors.ts";
import { Sensitive } from "../base/sensitive.ts";
import { bootstrapPostgres, brokerVerifier } from "../engines/registry.ts";

/** The demo's target: a database in the private PostgreSQL, with a table worth reading and a group that may read it. */
export const DEMO_DATABASE = "demo";
const BROKER_LOGIN = "leasehold_broker";
const GROUP = "demo_readers";

const TABLES = `
  create table if not exists greeting (id integer primary key, text text not null);
  insert into greeting values (1, 'hello from a leased login') on conflict do nothing;
  revoke all on database ${DEMO_DATABASE} from public;
  grant connect on database ${DEMO_DATABASE} to ${GROUP};
  grant usage on schema public to ${GROUP};
  grant select on greeting to ${GROUP};`;

export interface DemoServer {
  /** Superuser's URL for a database. */
  url(database: string): string;
  readonly port: number;
  /** Of the broker's own login there, which is no superuser. */
  readonly brokerPassword: string;
}

/** Makes the demo database and prepares it as `leasehold target bootstrap` would. Idempotent. */
export async function prepareDemoTarget(server: DemoServer, instance: string): Promise<void> {
  await withClient(server.url("postgres"), async (client) => {
    const found = await client.query("select from pg_database where datname = $1", [DEMO_DATABASE]);
    if (found.rowCount === 0) await client.query(`create database ${DEMO_DATABASE}`);
    const group = await client.query("select from pg_roles where rolname = $1", [GROUP]);
    if (group.rowCount === 0) await client.query(`create role ${GROUP} nologin`);
  });
  const verifier = await brokerVerifier(Sensitive.text(server.brokerPassword));
  await withClient(server.url(DEMO_DATABASE), async (client) => {
    await client.query(TABLES);
    await bootstrapPostgres(client, { instance, login: BROKER_LOGIN, verifier, allowedGroups: [GROUP] });
  });
}

async function withClient(url: string, work: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = new pg.Client(url);
  try {
    await client.connect();
    await work(client);
  } catch (error) {
    if (error instanceof LeaseholdError) throw error;
    throw new LeaseholdError("STORE_UNAVAILABLE", "the demo target could not be prepared", { cause: error });
  } finally {
    await client.end().catch(() => {});
  }
}

/** The demo's manifests, as `leasehold apply` takes them. @param password of the broker's login on the target. */
export function demoManifests(port: number, password: string): object[] {
  return [
    {
      kind: "Policy",
      name: "demo-app",
      description: "What the demo application may do.",
      principals: ["spiffe://leasehold.dev/ns/{ns}/sa/app"],
      rules: [
        { paths: ["secrets/{ns}/**"], allow: ["read", "describe", "list", "watch"] },
        { paths: ["credentials/postgres/demo-ro"], allow: ["issue", "renew", "watch"], when: 'request.ttl <= duration("10m")' },
        { paths: ["secrets/{ns}/root/**"], deny: ["*"] },
      ],
    },
    {
      kind: "Target",
      name: "demo",
      postgres: { host: "127.0.0.1", port, database: DEMO_DATABASE, username: BROKER_LOGIN, tlsMode: "TLS_MODE_DISABLE" },
      password: { text: password },
    },
    {
      kind: "Role",
      path: "credentials/postgres/demo-ro",
      target: "demo",
      defaultTtl: "60s",
      maxTtl: "600s",
      postgres: { database: DEMO_DATABASE, memberOf: [GROUP] },
    },
  ];
}

/** Secrets worth reading, written once. */
export const DEMO_SECRETS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "secrets/demo/api-key": { key: "sk_demo_4eC39HqLyjWDarjtT1zdp7dc" },
  "secrets/demo/smtp": { host: "smtp.example.com", user: "demo", password: "correct horse battery staple" },
  "secrets/demo/root/break-glass": { note: "no policy lets demo-app read this" },
};
