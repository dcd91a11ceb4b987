import { randomUUID } from "node:crypto";
import { type DescMessage, type DescMethodUnary, fromJson, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import type { Client } from "../../src/client/client.ts";
import { CallError } from "../../src/client/errors.ts";
import { CredentialService } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import { LeaseService } from "../../src/gen/leasehold/v1/lease_service_pb.ts";
import { OperatorService } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { RotationSchema, RotationService } from "../../src/gen/leasehold/v1/rotation_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { texts } from "./broker.ts";
import { oracleRole } from "./oracle-target.ts";
import type { Random } from "./random.ts";

export const FOLDERS = ["a", "b"] as const;
const NAMES = ["1", "2", "3"] as const;

/** What one seed does to its secrets, leases and rotation. */
export class OracleActs {
  /** What was written, by revision. */
  readonly values = new Map<number, string>();
  /** Paths of the leases there were. */
  readonly leases: string[] = [];
  readonly #writer: Client;
  readonly #random: Random;
  readonly #root: string;
  readonly #role: string;
  #hasRole = false;
  #hasRotation = false;

  /** @param root folder of its secrets. @param role path of its role. */
  constructor(writer: Client, random: Random, root: string, role: string) {
    [this.#writer, this.#random, this.#root, this.#role] = [writer, random, root, role];
  }

  async act(): Promise<void> {
    const dice = this.#random.next();
    if (dice < 0.86) await this.#write();
    else if (dice < 0.94) await this.#lease();
    else await this.#rotate();
  }

  async put(path: string, length: number): Promise<void> {
    const value = `${randomUUID()}${"x".repeat(length)}`;
    const written = await this.insist(SecretService.method.putSecret, { requestId: randomUUID(), path, data: texts({ v: value }) });
    if (written !== undefined) this.values.set(Number(written.revision), value);
  }

  /** A change, repeated until its outcome is known; undefined when it was refused. */
  async insist<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O> | undefined> {
    for (;;) {
      try {
        return await this.#writer.call(method, request);
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        const isUnknown = error.reason === "" || error.code === status.UNAVAILABLE || error.code === status.DEADLINE_EXCEEDED;
        if (!isUnknown) return undefined;
        if (error.code !== status.UNAVAILABLE) console.log(`${method.name}: ${error.code} ${error.reason} ${error.message}`);
      }
    }
  }

  async #write(): Promise<void> {
    const random = this.#random;
    const path = `${this.#root}/${random.of(FOLDERS)}/${random.of(NAMES)}`;
    const dice = random.next();
    const { deleteSecret, restoreSecret, updateSecretMetadata, deleteSecretVersions } = SecretService.method;
    if (dice < 0.65) await this.put(path, random.chance(0.1) ? 16_000 : 10);
    else if (dice < 0.77)
      await this.insist(deleteSecret, { requestId: randomUUID(), path, ...(random.chance(0.3) ? { recoveryWindow: { seconds: 0n, nanos: 0 } } : {}) });
    else if (dice < 0.87) await this.insist(restoreSecret, { requestId: randomUUID(), path });
    else if (dice < 0.94) await this.insist(updateSecretMetadata, { requestId: randomUUID(), path, labels: { n: String(random.below(1000)) } });
    else await this.insist(deleteSecretVersions, { requestId: randomUUID(), path, versions: [1n] });
  }

  /** A lease more, or one of them stretched or ended; some end by themselves. */
  async #lease(): Promise<void> {
    const random = this.#random;
    const dice = random.next();
    if (!this.#hasRole) {
      this.#hasRole = true;
      await this.insist(OperatorService.method.putRole, { role: oracleRole(this.#role) });
    }
    if (dice < 0.5 || this.leases.length === 0) {
      const ttl = durationFromMs(random.of([1000, 2000, 60_000]));
      const issued = await this.insist(CredentialService.method.issueCredential, { requestId: randomUUID(), path: this.#role, ttl });
      if (issued !== undefined) this.leases.push(issued.lease!.path);
    } else if (dice < 0.75) await this.insist(LeaseService.method.renewLease, { requestId: randomUUID(), path: random.of(this.leases) });
    else await this.insist(LeaseService.method.revokeLease, { requestId: randomUUID(), path: random.of(this.leases) });
  }

  async #rotate(): Promise<void> {
    const path = `rotations/${this.#root}/${FOLDERS[0]}/rotated`;
    if (this.#hasRotation) {
      await this.insist(RotationService.method.rotateNow, { requestId: randomUUID(), path });
      return;
    }
    this.#hasRotation = true;
    const generated = { fields: [{ name: "token", random: { size: 32 } }] };
    const rotation = fromJson(RotationSchema, { path, policy: { interval: "3600s" }, generated });
    await this.insist(RotationService.method.putRotation, { requestId: randomUUID(), rotation });
  }
}
