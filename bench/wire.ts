import { readFileSync } from "node:fs";
import { create, type DescMessage, type DescMethodUnary, fromBinary, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { Client, credentials } from "@grpc/grpc-js";
import type { Identity } from "../src/dev/pki.ts";

/** A client for preparing a broker; not for measuring. */
export class Wire {
  readonly #client: Client;

  constructor(address: string, ca: string, { certificate, key }: Identity) {
    const secure = credentials.createSsl(readFileSync(ca), readFileSync(key), readFileSync(certificate));
    this.#client = new Client(address, secure, { "grpc.ssl_target_name_override": "localhost", "grpc.use_local_subchannel_pool": 1 });
  }

  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    deadlineMs = 20_000,
  ): Promise<MessageShape<O>> {
    return fromBinary(method.output, await this.bytes(pathOf(method), encode(method.input, request), deadlineMs));
  }

  bytes(path: string, request: Buffer, deadlineMs = 20_000): Promise<Buffer> {
    const same = (bytes: Buffer): Buffer => bytes;
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(path, same, same, request, { deadline: Date.now() + deadlineMs }, (error, answer) => {
        if (error === null && answer !== undefined) resolve(answer);
        else reject(error ?? new Error("no answer"));
      });
    });
  }

  close(): void {
    this.#client.close();
  }
}

export function encode<M extends DescMessage>(schema: M, message: MessageInitShape<M>): Buffer {
  return Buffer.from(toBinary(schema, create(schema, message)));
}

export function pathOf(method: DescMethodUnary): string {
  return `/${method.parent.typeName}/${method.name}`;
}
