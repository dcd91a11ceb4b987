import { create, type DescMessage, type DescMethodUnary, fromBinary, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { Server, ServerCredentials, type sendUnaryData, type ServerUnaryCall, status } from "@grpc/grpc-js";
import { type RotationContext, RotatorService } from "../../src/gen/leasehold/v1/rotator_service_pb.ts";
import type { Value } from "../../src/gen/leasehold/v1/value_pb.ts";
import { authority, identity } from "./pki.ts";

/** Someone's RotatorService, of the leaf `server`: one account with the passwords that work; keeps to the contract of rotator_service.proto. */
export interface RotatorServiceUnderTest {
  readonly port: number;
  readonly caPem: string;
  accepts(password: string): boolean;
  stop(): Promise<void>;
}

type Fields = Readonly<Record<string, Value>>;

export async function rotatorService(first: string): Promise<RotatorServiceUnderTest> {
  const [own, ca] = await Promise.all([identity("server"), authority("acme")]);
  let passwords = [first];
  let newest = 0n;
  const password = (data: Fields): string => (data["password"]?.kind.case === "text" ? data["password"].kind.value : "");
  const changes = (context: RotationContext | undefined, next: () => readonly string[]): number => {
    if (context === undefined || context.generation < newest) return status.ABORTED;
    newest = context.generation;
    passwords = [...new Set(next())];
    return status.OK;
  };
  const server = new Server();
  const { setCandidate, testCandidate, finishRotation, discardCandidate } = RotatorService.method;
  server.addService(
    {
      SetCandidate: definitionOf(setCandidate),
      TestCandidate: definitionOf(testCandidate),
      FinishRotation: definitionOf(finishRotation),
      DiscardCandidate: definitionOf(discardCandidate),
    },
    {
      SetCandidate: handler(setCandidate, ({ context, candidate }) => [changes(context, () => [...passwords, password(candidate)]), {}]),
      TestCandidate: handler(testCandidate, ({ candidate }) => [status.OK, { works: passwords.includes(password(candidate)) }]),
      FinishRotation: handler(finishRotation, ({ context, current, previous }) => [changes(context, () => [password(current), password(previous)]), {}]),
      DiscardCandidate: handler(discardCandidate, ({ context, current, candidate }) => [
        changes(context, () => [...passwords.filter((one) => one !== password(candidate)), password(current)]),
        {},
      ]),
    },
  );
  const pair = { cert_chain: Buffer.from(own.certificatePem), private_key: Buffer.from(own.keyPem) };
  const tls = ServerCredentials.createSsl(Buffer.from(ca.certificatePem), [pair], true);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", tls, (error, bound) => (error === null ? resolve(bound) : reject(error))),
  );
  return { port, caPem: ca.certificatePem, accepts: (one) => passwords.includes(one), stop: async () => server.forceShutdown() };
}

function definitionOf<I extends DescMessage, O extends DescMessage>(method: DescMethodUnary<I, O>) {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: false,
    responseStream: false,
    requestSerialize: (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message)),
    requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
    responseSerialize: (message: MessageShape<O>) => Buffer.from(toBinary(method.output, message)),
    responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
  };
}

function handler<I extends DescMessage, O extends DescMessage>(
  method: DescMethodUnary<I, O>,
  answer: (request: MessageShape<I>) => readonly [code: number, message: MessageInitShape<O>],
) {
  return ({ request }: ServerUnaryCall<MessageShape<I>, MessageShape<O>>, callback: sendUnaryData<MessageShape<O>>): void => {
    const [code, message] = answer(request);
    if (code === status.OK) callback(null, create(method.output, message));
    else callback({ code });
  };
}
