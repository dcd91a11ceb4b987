import { Server, type ServerWritableStream } from "@grpc/grpc-js";
import { Redis } from "ioredis";
import { importCompiled } from "../compiled.ts";
import { usage } from "../serve.ts";

/*
 * The floor: a bare grpc-js server stream, WatchService.Watch by name, on the broker's own TLS front. It writes one message at once, and then what it is told to write, ready bytes, to every stream:
 * `{ write: base64 }`; or, for delivery, the same whenever something is published in Redis on the channel `floor`. Arguments: the broker's configuration file, Redis.
 */
const { Front } = (await importCompiled("rpc/front.js")) as typeof import("../../src/rpc/front.ts");
const { createGrpcServerOptions } = (await importCompiled("rpc/front-limits.js")) as typeof import("../../src/rpc/front-limits.ts");
const { rawMethod } = (await importCompiled("rpc/definition.js")) as typeof import("../../src/rpc/definition.ts");
const { WatchService } = (await importCompiled("gen/leasehold/v1/watch_service_pb.js")) as typeof import("../../src/gen/leasehold/v1/watch_service_pb.ts");
const { loadConfig } = (await importCompiled("config.js")) as typeof import("../../src/config.ts");
const { createLog } = (await importCompiled("base/log.js")) as typeof import("../../src/base/log.ts");
const { Metrics } = (await importCompiled("base/metrics.js")) as typeof import("../../src/base/metrics.ts");

const [configFile, redisUrl] = process.argv.slice(2) as [string, string];
const { tls } = loadConfig(configFile);
const open = new Set<ServerWritableStream<Buffer, Buffer>>();
let bytes: Buffer = Buffer.alloc(68, 1);

const grpc = new Server(createGrpcServerOptions());
grpc.addService(
  { watch: rawMethod(WatchService.method.watch) },
  {
    watch(stream: ServerWritableStream<Buffer, Buffer>) {
      open.add(stream);
      stream.once("cancelled", () => open.delete(stream));
      stream.write(bytes);
    },
  },
);
const files = { certificateFile: tls.certificateFile, keyFile: tls.keyFile, trust: tls.trust };
const front = new Front({ files, listen: "127.0.0.1:0", refuse: "handshake", log: createLog("silent", undefined), metrics: new Metrics() });
await front.start(grpc);
const redis = new Redis(redisUrl);
await redis.subscribe("floor");
redis.on("message", () => {
  for (const stream of open) stream.write(bytes);
});

process.on("message", ({ write, gc, stop }: { write?: string; gc?: boolean; stop?: boolean }) => {
  if (stop === true) process.exit(0);
  if (write !== undefined) {
    bytes = Buffer.from(write, "base64");
    for (const stream of open) stream.write(bytes);
  }
  process.send!(usage(gc));
});
process.once("disconnect", () => process.exit(1));
process.send!({ address: front.address });
