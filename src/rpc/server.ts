import type { DescFile, DescService } from "@bufbuild/protobuf";
import { type ChannelOptions, Server, type ServiceDefinition, type UntypedHandleCall, type UntypedServiceImplementation } from "@grpc/grpc-js";
import { file_google_rpc_error_details } from "../gen/google/rpc/error_details_pb.ts";
import { Health as HealthService } from "../gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { rawMethod } from "./definition.ts";
import { Health } from "./health.ts";
import type { Method, Pipeline } from "./pipeline.ts";
import { Reflection } from "./reflection.ts";

/** The gRPC server behind the TLS front: our services, health and reflection. It listens on nothing; the front injects connections into `grpc`. */
export class RpcServer {
  readonly grpc: Server;
  readonly health: Health;
  readonly #pipeline: Pipeline;
  readonly #reflection: Reflection;

  /**
   * @param methods of `pipeline.bind`, all services together; a method that is missing is answered UNIMPLEMENTED by grpc-js.
   * @param options the front's (message size, keepalive, concurrency).
   */
  constructor(pipeline: Pipeline, methods: readonly Method[], options: ChannelOptions) {
    this.grpc = new Server({ ...options, "grpc.enable_channelz": 0 });
    this.#pipeline = pipeline;
    const services = [...new Set(methods.map((method) => method.desc.parent))];
    this.health = new Health(services.map((service) => service.typeName));
    for (const service of services) this.#serve(service, methods);
    this.grpc.addService(definitionOf(HealthService), this.health.handlers());
    const shown = [...services, HealthService, ServerReflection, ServerReflectionAlpha];
    // The error details too: grpcurl asks for their types to show them.
    this.#reflection = new Reflection([...filesOf(shown), file_google_rpc_error_details]);
    this.grpc.addService(definitionOf(ServerReflection), this.#reflection.handlers());
    this.grpc.addService(definitionOf(ServerReflectionAlpha), this.#reflection.handlers());
  }

  /** Calls and streams of our services under way. */
  get inFlight(): number {
    return this.#pipeline.size;
  }

  /**
   * NOT_SERVING, new calls refused, streams ended with DRAINING and their resume tokens; resolves when the last call has been answered, at the latest
   * after `graceMs`. The front then drains and destroys the connections: grpc-js's own shutdowns don't work on injected ones.
   */
  async drain(graceMs: number): Promise<void> {
    this.health.set(false);
    this.health.endWatches();
    this.#reflection.end();
    await this.#pipeline.drain(graceMs);
  }

  #serve(service: DescService, methods: readonly Method[]): void {
    const handlers: UntypedServiceImplementation = {};
    for (const method of methods) {
      if (method.desc.parent !== service) continue;
      const streaming = method.desc.methodKind === "server_streaming";
      handlers[method.desc.localName] = (streaming ? this.#pipeline.stream(method) : this.#pipeline.unary(method)) as UntypedHandleCall;
    }
    this.grpc.addService(definitionOf(service), handlers);
  }
}

function definitionOf(service: DescService): ServiceDefinition {
  return Object.fromEntries(service.methods.map((method) => [method.localName, rawMethod(method)]));
}

function filesOf(services: readonly DescService[]): DescFile[] {
  return [...new Set(services.map((service) => service.file))];
}
