import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from "node:net";
import { createServer, type Server as TlsServer } from "node:tls";
import { create, type DescMessage, type DescMethodUnary, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Server, ServerCredentials, type ServiceError } from "@grpc/grpc-js";
import { Client } from "../../src/client/client.ts";
import { type GetPolicyResponse, PolicyService, type PutPolicyRequest } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { OperatorService, type RoleSchema } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import type { PolicySchema } from "../../src/gen/leasehold/v1/policy_service_pb.ts";
import { bundle, identity } from "./pki.ts";

type Answer<O extends DescMessage> = (error: Partial<ServiceError> | null, response?: MessageInitShape<O>) => void;
type Handler<I extends DescMessage, O extends DescMessage> = (request: ReturnType<typeof fromBinary<I>>, answer: Answer<O>) => void;

interface Registered {
  readonly path: string;
  readonly name: string;
  readonly handle: (bytes: Buffer, answer: (error: Partial<ServiceError> | null, bytes?: Buffer) => void) => void;
}

/** One unary rpc of a peer. */
export function rpc<I extends DescMessage, O extends DescMessage>(method: DescMethodUnary<I, O>, handler: Handler<I, O>): Registered {
  return {
    name: method.name,
    path: `/${method.parent.typeName}/${method.name}`,
    handle: (bytes, answer) =>
      handler(fromBinary(method.input, bytes), (error, response) =>
        answer(error, response === undefined ? undefined : Buffer.from(toBinary(method.output, create(method.output, response)))),
      ),
  };
}

/** A gRPC server over mutual TLS that knows these rpcs alone: the other side of the wire for tests of the client. */
export async function startServer(rpcs: readonly Registered[], port = 0): Promise<{ readonly port: number; readonly server: Server }> {
  const [{ certificatePem, keyPem }, ca] = await Promise.all([identity("server"), bundle("acme")]);
  const server = new Server();
  const same = (bytes: Buffer): Buffer => bytes;
  for (const { name, path, handle } of rpcs) {
    const definition = {
      path,
      requestStream: false,
      responseStream: false,
      requestSerialize: same,
      requestDeserialize: same,
      responseSerialize: same,
      responseDeserialize: same,
    } as const;
    server.addService(
      { [name]: definition },
      {
        [name]: (call: { request: Buffer }, callback: (error: Partial<ServiceError> | null, bytes?: Buffer) => void) => handle(call.request, callback),
      },
    );
  }
  const credentials = ServerCredentials.createSsl(Buffer.from(ca), [{ cert_chain: Buffer.from(certificatePem), private_key: Buffer.from(keyPem) }], true);
  const bound = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`127.0.0.1:${port}`, credentials, (error, at) => (error === null ? resolve(at) : reject(error))),
  );
  return { port: bound, server };
}

/** The command's client, as acme's admin. */
export async function clientAt(port: number, timeoutMs = 10_000): Promise<Client> {
  const [{ certificatePem, keyPem }, ca] = await Promise.all([identity("admin"), bundle("acme")]);
  return new Client({ address: `127.0.0.1:${port}`, certificate: certificatePem, key: keyPem, ca, serverName: "localhost" }, timeoutMs);
}

/** A line to a server that can be cut, as a pulled cable or a kill -9 does. */
export async function startLine(to: number): Promise<{ readonly port: number; cut(): void; close(): void }> {
  const sockets = new Set<Socket>();
  const line = createTcpServer((socket) => {
    const beyond = connect(to, "127.0.0.1");
    for (const each of [socket, beyond]) sockets.add(each.on("error", () => {}));
    socket.pipe(beyond).pipe(socket);
  });
  await new Promise<void>((resolve) => line.listen(0, "127.0.0.1", resolve));
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
    sockets.clear();
  };
  return {
    port: (line.address() as AddressInfo).port,
    cut,
    close() {
      cut();
      line.close();
    },
  };
}

/** A TLS server that goes no further than 1.2. */
export async function startTls12(): Promise<{ readonly port: number; readonly server: TlsServer }> {
  const { certificatePem, keyPem } = await identity("server");
  const server = createServer({ cert: certificatePem, key: keyPem, maxVersion: "TLSv1.2", ALPNProtocols: ["h2"] }, (socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: (server.address() as AddressInfo).port, server };
}

interface Stored {
  readonly policy?: MessageInitShape<typeof PolicySchema>;
  readonly role?: MessageInitShape<typeof RoleSchema>;
}

interface Peer extends AsyncDisposable {
  readonly client: Client;
  /** The PutPolicy requests that came. */
  readonly puts: readonly PutPolicyRequest[];
  getPolicy(): Promise<GetPolicyResponse>;
}

/** A broker that holds one policy or one role, and takes writes without doing them. */
export async function startPeer({ policy, role }: Stored): Promise<Peer> {
  const puts: PutPolicyRequest[] = [];
  const { port, server } = await startServer([
    rpc(PolicyService.method.getPolicy, (_request, answer) => answer(null, { policy: policy! })),
    rpc(PolicyService.method.putPolicy, (request, answer) => {
      puts.push(request);
      answer(null, {});
    }),
    rpc(OperatorService.method.getRole, (_request, answer) => answer(null, { role: role! })),
    rpc(OperatorService.method.putRole, (_request, answer) => answer(null, {})),
  ]);
  const client = await clientAt(port);
  return {
    client,
    puts,
    getPolicy: () => client.call(PolicyService.method.getPolicy, { path: "policies/p" }),
    async [Symbol.asyncDispose]() {
      client.close();
      server.forceShutdown();
      await Promise.resolve();
    },
  };
}
