import { randomBytes } from "node:crypto";
import { fromJson } from "@bufbuild/protobuf";
import type { Client } from "../../src/client/client.ts";
import { OperatorService, RoleSchema, TargetSchema } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { bootstrap, BROKER_LOGIN, DATABASE, GROUP, targetCluster } from "./lease-world.ts";
import type { TestCluster } from "./postgres.ts";

const TARGET = "oracle";

/** A PostgreSQL on which seeds have their leases. */
export async function addOracleTarget(admin: Client): Promise<TestCluster> {
  const cluster = await targetCluster();
  const password = randomBytes(16).toString("hex");
  const { instance } = await admin.call(OperatorService.method.getServerInfo, {});
  await bootstrap(cluster, instance, password);
  const postgres = { host: cluster.host, port: cluster.port, database: DATABASE, username: BROKER_LOGIN, tlsMode: "TLS_MODE_DISABLE" };
  await admin.call(OperatorService.method.putTarget, { target: fromJson(TargetSchema, { name: TARGET, postgres, password: { text: password } }) });
  return cluster;
}

/** A role there, whose leases last between a second and ten minutes. */
export function oracleRole(path: string) {
  const postgres = { database: DATABASE, memberOf: [GROUP], scramIterations: 1 };
  return fromJson(RoleSchema, { path, target: TARGET, defaultTtl: "60s", maxTtl: "600s", postgres });
}
