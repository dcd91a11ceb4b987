import { readFileSync } from "node:fs";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type sendUnaryData, Server, type ServerUnaryCall } from "@grpc/grpc-js";
import { importCompiled } from "./compiled.ts";
import { serveBench } from "./serve.ts";

/*
 * The floor: a bare grpc-js service with the methods of SecretService on the broker's own TLS front. `messages`: decodes each request and encodes a fixed response, with
 * the same generated types, as any server must that answers with messages. `bytes`: not even that.
 * Arguments: mode, the broker's configuration file (for the TLS files), a file with a response's bytes for each method.
 */
const { Front } = (await importCompiled("rpc/front.js")) as typeof import("../src/rpc/front.ts");
const { createGrpcServerOptions } = (await importCompiled("rpc/front-limits.js")) as typeof import("../src/rpc/front-limits.ts");
const { rawMethod, toBuffer } = (await importCompiled("rpc/definition.js")) as typeof import("../src/rpc/definition.ts");
const { SecretService } = (await importCompiled("gen/leasehold/v1/secret_service_pb.js")) as typeof import("../src/gen/leasehold/v1/secret_service_pb.ts");
const { loadConfig } = (await importCompiled("config.js")) as typeof import("../src/config.ts");
const { createLog } = (await importCompiled("base/log.js")) as typeof import("../src/base/log.ts");
const { Metrics } = (await importCompiled("base/metrics.js")) as typeof import("../src/base/metrics.ts");

const [mode, configFile, answersFile] = process.argv.slice(2) as [string, string, string];
const { tls } = loadConfig(configFile);
const answers = JSON.parse(readFileSync(answersFile, "utf8")) as Readonly<Record<"getSecret" | "batchGetSecrets", string>>;

type Method = (typeof SecretService.method)["getSecret" | "batchGetSecrets"];
type Handler = (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => void;

function echo({ input, output }: Method, answer: string): Handler {
  const bytes = Buffer.from(answer, "base64");
  if (mode === "bytes") return (_call, callback) => callback(null, bytes);
  const fixed = fromBinary(output, bytes);
  return ({ request }, callback) => {
    fromBinary(input, new Uint8Array(request.buffer, request.byteOffset, request.byteLength));
    callback(null, toBuffer(toBinary(output, create(output, fixed))));
  };
}

const grpc = new Server(createGrpcServerOptions());
const { getSecret, batchGetSecrets } = SecretService.method;
grpc.addService(
  { getSecret: rawMethod(getSecret), batchGetSecrets: rawMethod(batchGetSecrets) },
  { getSecret: echo(getSecret, answers.getSecret), batchGetSecrets: echo(batchGetSecrets, answers.batchGetSecrets) },
);
const files = { certificateFile: tls.certificateFile, keyFile: tls.keyFile, trust: tls.trust };
const front = new Front({ files, listen: "127.0.0.1:0", refuse: "handshake", log: createLog("silent", undefined), metrics: new Metrics() });
await front.start(grpc);
serveBench(front.address, () => front.drain(100));
