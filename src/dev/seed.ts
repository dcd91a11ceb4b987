import { readFileSync } from "node:fs";
import {
  create,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  fromJson,
  type JsonObject,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Client, credentials } from "@grpc/grpc-js";
import { OperatorService, RoleSchema, TargetSchema } from "../gen/leasehold/v1/operator_service_pb.ts";
import { PolicySchema, PolicyService } from "../gen/leasehold/v1/policy_service_pb.ts";
import { SecretService } from "../gen/leasehold/v1/secret_service_pb.ts";
import { demoManifests, type DemoServer, DEMO_SECRETS, prepareDemoTarget } from "./demo.ts";
import type { DevPki } from "./pki.ts";

/** Puts the demo into a running broker, over the wire, as `admin`; secrets only where there are none, so that what a user wrote stays. */
export async function seedDemo(address: string, pki: DevPki, server: DemoServer): Promise<void> {
  const { certificate, key } = pki.clients.admin;
  const client = new Client(address, credentials.createSsl(readFileSync(pki.ca), readFileSync(key), readFileSync(certificate)), {
    "grpc.ssl_target_name_override": "localhost",
  });
  const call = caller(client);
  try {
    const { instance } = await call(OperatorService.method.getServerInfo, {});
    await prepareDemoTarget(server, instance);
    for (const { kind, ...manifest } of demoManifests(server.port, server.brokerPassword) as JsonObject[]) {
      if (kind === "Policy") await call(PolicyService.method.putPolicy, { policy: fromJson(PolicySchema, manifest) });
      else if (kind === "Target") await call(OperatorService.method.putTarget, { target: fromJson(TargetSchema, manifest) });
      else await call(OperatorService.method.putRole, { role: fromJson(RoleSchema, manifest) });
    }
    for (const [path, fields] of Object.entries(DEMO_SECRETS)) {
      const data = Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, { kind: { case: "text" as const, value } }]));
      await call(SecretService.method.putSecret, { path, data, expectedVersion: 0n }).catch((error: Error & { code?: number }) => {
        if (error.code !== ABORTED) throw error;
      });
    }
  } finally {
    client.close();
  }
}

/** gRPC's code for a lost compare-and-set: the secret is there already. */
const ABORTED = 10;
const DEADLINE_MS = 20_000;

function caller(client: Client) {
  return <I extends DescMessage, O extends DescMessage>(method: DescMethodUnary<I, O>, request: MessageInitShape<I>): Promise<MessageShape<O>> =>
    new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        `/${method.parent.typeName}/${method.name}`,
        (message: MessageInitShape<I>) => Buffer.from(toBinary(method.input, create(method.input, message))),
        (bytes: Buffer) => fromBinary(method.output, bytes),
        request,
        { deadline: Date.now() + DEADLINE_MS },
        (error, response) => (error === null && response !== undefined ? resolve(response) : reject(error ?? new Error("no response"))),
      );
    });
}
