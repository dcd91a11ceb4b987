import { Redis } from "ioredis";
import { newPassword } from "../../src/engines/generate.ts";
import { bootstrapPostgres, brokerVerifier } from "../../src/engines/postgres/bootstrap.ts";
import type { SecretData } from "../../src/model/secret.ts";
import { BROKER, clientOf, GROUP, INSTANCE } from "../conformance/engine-postgres-setup.ts";
import { clientOf as redisClientOf, redisTarget, type RedisServer } from "../conformance/engine-redis-setup.ts";
import { type LeaseTarget, startLeaseTarget } from "./leases.ts";

export const LOGINS = ["app_a", "app_b"] as const;
export const SINGLE = "app_single";
export const REDIS_USER = "app";

/** A PostgreSQL target with two logins of an application in one group, allowed by the superuser, and a way to log in as the application does. */
export async function postgresWithLogins(): Promise<{ readonly target: LeaseTarget; login(data: SecretData): Promise<void> }> {
  const target = await startLeaseTarget();
  const superuser = await target.cluster.superuser();
  const verifier = await brokerVerifier(newPassword());
  for (const login of [...LOGINS, SINGLE]) await superuser.query(`CREATE ROLE ${login} LOGIN IN ROLE ${GROUP} PASSWORD '${verifier}'`);
  await bootstrapPostgres(superuser, { instance: INSTANCE, login: BROKER, verifier: undefined, allowedGroups: undefined, allowedLogins: [...LOGINS, SINGLE] });
  await superuser.end();
  return {
    target,
    async login(data) {
      const connection = { host: "127.0.0.1", port: String(target.cluster.port), database: "postgres", username: data.get("username")!.value.revealText() };
      await (await clientOf(connection, data.get("password")!.value)).end();
    },
  };
}

/** A Redis with a user of an application. */
export async function redisWithUser(): Promise<{ readonly server: RedisServer; login(data: SecretData): Promise<void> }> {
  const server = await redisTarget();
  const admin = new Redis(server.url);
  await admin.call("ACL", "SETUSER", REDIS_USER, "on", ">the-first-password", "~app:*", "+@read");
  admin.disconnect();
  return {
    server,
    async login(data) {
      const connection = { host: "127.0.0.1", port: String(server.config.port), username: data.get("username")!.value.revealText() };
      await (await redisClientOf(connection, data.get("password")!.value)).close();
    },
  };
}
