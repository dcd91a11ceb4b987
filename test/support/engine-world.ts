import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { expect } from "vitest";
import { stringify } from "yaml";
import { applyManifest, parseManifests } from "../../src/cli/manifest.ts";
import type { Client } from "../../src/client/client.ts";
import { Sensitive } from "../../src/base/sensitive.ts";
import { CredentialService } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { LeaseService } from "../../src/gen/leasehold/v1/lease_service_pb.ts";
import { Lease_State } from "../../src/gen/leasehold/v1/lease_pb.ts";
import { OperatorService, type TestTargetResponse } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import type { LeasedSession } from "../conformance/engine.ts";
import { APP, type TestBroker, type TestWorld, testWorld } from "./broker.ts";
import { until } from "./until.ts";

type Connection = Readonly<Record<string, string>>;

export interface EngineWorld {
  readonly broker: TestBroker;
  /** As `leasehold apply` does it. */
  apply(...documents: readonly object[]): Promise<string[]>;
  test(target: string, role: string): Promise<TestTargetResponse>;
  /** Issues as the application, which may. */
  issue(path: string): Promise<{ readonly lease: string; readonly connection: Connection; readonly password: Sensitive }>;
  close(): Promise<void>;
}

/** A whole broker whose application may be issued everything of one engine. */
export async function engineWorld(engine: string): Promise<EngineWorld> {
  const world: TestWorld = await testWorld();
  const broker = await world.start();
  const apply = async (...documents: readonly object[]): Promise<string[]> => {
    const applied: string[] = [];
    for (const manifest of parseManifests(documents.map((document) => stringify(document)).join("---\n"), "test")) {
      // oxlint-disable-next-line no-await-in-loop -- in order
      applied.push((await applyManifest(broker.as("admin"), manifest, false)).applied);
    }
    return applied;
  };
  await apply({ kind: "Policy", name: "app", principals: [APP], rules: [{ paths: [`credentials/${engine}/team/**`], allow: ["issue", "renew"] }] });
  return {
    broker,
    apply,
    test: (target, role) => broker.as("admin").call(OperatorService.method.testTarget, { path: `targets/${target}`, rolePath: role }),
    async issue(path) {
      const issued = await broker.as("app").call(CredentialService.method.issueCredential, { path, ttl: durationFromMs(60_000) });
      const data = Object.fromEntries(Object.entries(issued.data).map(([name, { kind }]) => [name, kind.case === "text" ? kind.value : ""]));
      const { password, ...connection } = data;
      return { lease: issued.lease!.path, connection, password: Sensitive.text(password!) };
    },
    close: () => world.close(),
  };
}

/** A lease from its issue to its end: it works, can be renewed, and after its revocation neither the open session nor a new one does. */
export async function lifeOfALease(
  world: EngineWorld,
  path: string,
  connect: (connection: Connection, password: Sensitive) => Promise<LeasedSession>,
): Promise<void> {
  const app: Client = world.broker.as("app");
  const { lease, connection, password } = await world.issue(path);
  const session = await connect(connection, password);
  await session.use();
  await app.call(LeaseService.method.renewLease, { path: lease });
  await app.call(LeaseService.method.revokeLease, { path: lease });
  await until(`${lease} to be revoked`, async () => {
    const answer = await app.call(LeaseService.method.getLease, { path: lease });
    return answer.lease?.state === Lease_State.REVOKED ? true : undefined;
  });
  await session.ended;
  await expect(connect(connection, password)).rejects.toThrow();
}
