import { create, type DescMessage, type DescMethodUnary, fromBinary, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Client as Channel, ClientUnaryCall, ServiceError } from "@grpc/grpc-js";
import { CallError } from "../../src/client/errors.ts";
import { CredentialService, type IssueCredentialResponse } from "../../src/gen/leasehold/v1/credential_service_pb.ts";
import type { Lease } from "../../src/gen/leasehold/v1/lease_pb.ts";
import { LeaseService } from "../../src/gen/leasehold/v1/lease_service_pb.ts";

const DEADLINE_MS = 20_000;

/** One identity's calls to one broker, without retries: what a test sees is what the broker said. */
export class Caller {
  readonly #channel: Channel;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** Throws CallError. */
  call<I extends DescMessage, O extends DescMessage>(method: DescMethodUnary<I, O>, request: MessageInitShape<I>): Promise<MessageShape<O>> {
    return this.begin(method, request).answer;
  }

  begin<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): { readonly raw: ClientUnaryCall; readonly answer: Promise<MessageShape<O>> } {
    const answer = Promise.withResolvers<MessageShape<O>>();
    const raw = this.#channel.makeUnaryRequest(
      `/${method.parent.typeName}/${method.name}`,
      (message: MessageInitShape<I>) => Buffer.from(toBinary(method.input, create(method.input, message))),
      (bytes: Buffer) => fromBinary(method.output, bytes),
      request,
      { deadline: Date.now() + DEADLINE_MS },
      (error: ServiceError | null, response?: MessageShape<O>) => (response === undefined ? answer.reject(new CallError(error!)) : answer.resolve(response)),
    );
    return { raw, answer: answer.promise };
  }

  issue(path: string, ttlMs?: number, requestId = ""): Promise<IssueCredentialResponse> {
    return this.call(CredentialService.method.issueCredential, { path, requestId, ...(ttlMs === undefined ? {} : { ttl: durationFromMs(ttlMs) }) });
  }

  async renew(path: string, incrementMs?: number): Promise<Lease> {
    return (await this.call(LeaseService.method.renewLease, { path, ...(incrementMs === undefined ? {} : { increment: durationFromMs(incrementMs) }) })).lease!;
  }

  async revoke(path: string): Promise<Lease> {
    return (await this.call(LeaseService.method.revokeLease, { path })).lease!;
  }

  async lease(path: string): Promise<Lease> {
    return (await this.call(LeaseService.method.getLease, { path })).lease!;
  }

  close(): void {
    this.#channel.close();
  }
}
