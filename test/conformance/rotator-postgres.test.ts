import { Sensitive } from "../../src/base/sensitive.ts";
import { newPassword } from "../../src/engines/generate.ts";
import { bootstrapPostgres, brokerVerifier } from "../../src/engines/postgres/bootstrap.ts";
import { postgresAlternatingUsers } from "../../src/rotation/postgres-alternating-users/definition.ts";
import { postgresSingleUser } from "../../src/rotation/postgres-single-user/definition.ts";
import type { SecretData } from "../../src/model/secret.ts";
import { type LeaseTarget, leaseWorld, startLeaseTarget } from "../support/leases.ts";
import { dataOf, rotatorHost } from "../support/rotators.ts";
import { tcpProxy } from "../support/tcp-proxy.ts";
import { BROKER, clientOf, GROUP, INSTANCE } from "./engine-postgres-setup.ts";
import { rotatorConformance, type RotatorUnderTest } from "./rotator.ts";

const LOGINS = ["app_a", "app_b"] as const;

/** A target with two logins of an application in one group, allowed by the superuser, seen through a proxy. */
async function prepared(): Promise<Omit<RotatorUnderTest<unknown>, "definition" | "config" | "currentAlwaysWorks">> {
  const target: LeaseTarget = await startLeaseTarget();
  const password = newPassword();
  const superuser = await target.cluster.superuser();
  for (const login of LOGINS) await superuser.query(`CREATE ROLE ${login} LOGIN IN ROLE ${GROUP} PASSWORD '${await brokerVerifier(password)}'`);
  await bootstrapPostgres(superuser, { instance: INSTANCE, login: BROKER, verifier: undefined, allowedGroups: undefined, allowedLogins: LOGINS });
  await superuser.end();
  const proxy = await tcpProxy(target.cluster.port);
  const world = await leaseWorld({ ...target, config: { ...target.config, port: proxy.port } });
  const host = rotatorHost(await world.replica());
  return {
    host,
    initial: dataOf({ username: LOGINS[0], password: Sensitive.text(password.revealText()), note: "kept" }),
    async login(data: SecretData) {
      const connection = { host: "127.0.0.1", port: String(target.cluster.port), database: "postgres", username: data.get("username")!.value.revealText() };
      await (await clientOf(connection, data.get("password")!.value)).end();
    },
    proxy,
    async stop() {
      await host.close();
      await world.close();
      await proxy.stop();
      await target.cluster.stop();
    },
  };
}

rotatorConformance("postgres_single_user", async () => ({
  ...(await prepared()),
  definition: postgresSingleUser,
  config: { target: "db", username: LOGINS[0], database: undefined, passwordPolicy: undefined },
  currentAlwaysWorks: false,
}));

rotatorConformance("postgres_alternating_users", async () => ({
  ...(await prepared()),
  definition: postgresAlternatingUsers,
  config: {
    target: "db",
    usernames: LOGINS,
    owner: GROUP,
    database: "other",
    passwordPolicy: { length: 40, minUpper: 1, minLower: 1, minDigits: 1, minSymbols: 1 },
  },
  currentAlwaysWorks: true,
}));
