import { create, type DescMessage, type DescMethod, fromBinary, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import type { Span } from "@opentelemetry/api";
import { Client, type ClientReadableStream, credentials, Metadata, ServerCredentials, type ServiceError } from "@grpc/grpc-js";
import { pino } from "pino";
import { ErrorInfoSchema } from "../../src/gen/google/rpc/error_details_pb.ts";
import {
  ServerReflectionRequestSchema,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from "../../src/gen/grpc/reflection/v1/reflection_pb.ts";
import { type Status, StatusSchema } from "../../src/gen/google/rpc/status_pb.ts";
import type { AuditWriter } from "../../src/audit/audit.ts";
import { Metrics } from "../../src/base/metrics.ts";
import type { AuditEntry } from "../../src/model/audit.ts";
import type { Capability } from "../../src/model/capability.ts";
import { inScope, parseScope } from "../../src/model/path.ts";
import type { Principal } from "../../src/model/principal.ts";
import type { Access, Decision, Resources } from "../../src/rpc/collaborators.ts";
import type { Connection } from "../../src/rpc/connection.ts";
import { type Handlers, methodPath, type ServiceShape } from "../../src/rpc/definition.ts";
import { DEFAULT_OPTIONS, type PipelineOptions } from "../../src/rpc/options.ts";
import { type Method, Pipeline } from "../../src/rpc/pipeline.ts";
import { RpcServer } from "../../src/rpc/server.ts";

export const ALICE: Principal = { id: "spiffe://acme.test/ns/a/sa/alice", trustDomain: "acme.test", segments: ["ns", "a", "sa", "alice"] };

/** Rules of the tests: `allow("read", "secrets/a/**")`. */
export class TestAccess implements Access {
  readonly allowed: [Capability, string][] = [];
  readonly denied: [Capability, string][] = [];
  facts: unknown[] = [];
  policies: object = {};

  decide(_principal: Principal, capability: Capability, path: string, facts?: unknown): Decision {
    this.facts.push(facts);
    const matches = (rules: [Capability, string][]): boolean => rules.some(([of, scope]) => of === capability && inScope(path, parseScope(scope)));
    if (matches(this.denied)) return "deny";
    return matches(this.allowed) ? "allow" : "none";
  }

  allowedPrefixes(_principal: Principal, capability: Capability) {
    return this.allowed.filter(([of]) => of === capability).map(([, scope]) => parseScope(scope));
  }

  allowsFolder(_principal: Principal, capability: Capability, folder: string): boolean {
    return this.allowed.some(([of, scope]) => of === capability && scope === `${folder}**`);
  }
}

/** Keeps records in memory: these tests are about the pipeline, not about the chain. */
export class TestAudit implements AuditWriter {
  readonly entries: AuditEntry[] = [];
  failure: Error | undefined;
  fresh = 0;
  /** When set, records become durable only when the test says so. */
  held: (() => void)[] | undefined;

  append(entry: AuditEntry, done: (error: Error | undefined, fresh: number) => void): void {
    const write = (): void => {
      if (this.failure === undefined) this.entries.push(entry);
      done(this.failure, this.fresh);
    };
    if (this.held === undefined) setImmediate(write);
    else this.held.push(write);
  }

  release(): void {
    const held = this.held ?? [];
    this.held = undefined;
    for (const write of held) write();
  }
}

export class TestResources implements Resources {
  readonly leases = new Map<string, { rolePath: string; owner: string }>();
  readonly operations = new Map<string, { owner: string }>();
  readonly defaults = new Map<string, number>();
  async lease(id: string) {
    return this.leases.get(id);
  }
  async operation(id: string) {
    return this.operations.get(id);
  }
  defaultTtlMs(rolePath: string) {
    return this.defaults.get(rolePath);
  }
}

export interface Harness {
  readonly access: TestAccess;
  readonly audit: TestAudit;
  readonly resources: TestResources;
  readonly freshness: { applied: number; lagMs: number; caughtUp: number[]; onCatchUp: (() => void) | undefined; catchUp(revision: number): Promise<void> };
  readonly metrics: Metrics;
  readonly pipeline: Pipeline;
  readonly server: RpcServer;
  readonly logs: string[];
  readonly spans: Span[];
  /** Every connection of the harness is this one. */
  connection: Connection | undefined;
  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { input: I; output: O },
    request: MessageInitShape<I>,
    options?: CallOptions,
  ): Promise<Reply<O>>;
  raw(path: string, bytes: Buffer, options?: CallOptions): Promise<Buffer>;
  open<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { input: I; output: O },
    request: MessageInitShape<I>,
  ): ClientReadableStream<MessageShape<O>>;
  /** Sends the requests to grpc.reflection.<version> and gives the answers in order. */
  reflect(version: string, requests: readonly (MessageInitShape<typeof ServerReflectionRequestSchema> | Buffer)[]): Promise<ServerReflectionResponse[]>;
  /** Tells clients to go elsewhere (GOAWAY), as a connection of age does; calls under way go on. */
  leave(): void;
  close(): Promise<void>;
}

export interface CallOptions {
  readonly deadlineMs?: number;
  readonly metadata?: Record<string, string>;
  readonly onCall?: (cancel: () => void) => void;
}

export interface Reply<O extends DescMessage> {
  readonly answer: MessageShape<O> | undefined;
  readonly error: ServiceError | undefined;
  /** Reason of the error's ErrorInfo. */
  readonly reason: string | undefined;
  readonly status: Status | undefined;
}

export async function startHarness(bind: (pipeline: Pipeline) => readonly Method[], options: Partial<PipelineOptions> = {}): Promise<Harness> {
  const access = new TestAccess();
  const audit = new TestAudit();
  const resources = new TestResources();
  const metrics = new Metrics();
  const logs: string[] = [];
  const freshness: Harness["freshness"] = {
    applied: 0,
    lagMs: 0,
    caughtUp: [],
    onCatchUp: undefined,
    async catchUp(revision) {
      freshness.caughtUp.push(revision);
      freshness.onCatchUp?.();
      freshness.applied = revision;
    },
  };
  const state: { connection: Connection | undefined } = {
    connection: { id: "c1", peer: "192.0.2.1:1234", serial: "0a", notAfter: Date.now() + 3_600_000, principal: ALICE, refusal: undefined },
  };
  const pipeline = new Pipeline(
    {
      connections: { connectionOf: () => state.connection },
      access,
      audit,
      freshness,
      resources,
      observer: { log: pino({ level: "trace" }, { write: (line: string) => void logs.push(line) }), metrics, spans: undefined },
    },
    { ...DEFAULT_OPTIONS, denialWindowMs: 20, ...options },
  );
  const server = new RpcServer(pipeline, bind(pipeline), { "grpc.max_receive_message_length": 1024 * 1024 });
  const port = await new Promise<number>((resolve, reject) => {
    server.grpc.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) => (error === null ? resolve(bound) : reject(error)));
  });
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  const metadataOf = (from: Record<string, string> = {}): Metadata => {
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(from)) metadata.set(name, value);
    return metadata;
  };
  const raw = (path: string, bytes: Buffer, o: CallOptions = {}): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      const same = (b: Buffer): Buffer => b;
      const deadline = Date.now() + (o.deadlineMs ?? 10_000);
      const call = client.makeUnaryRequest(path, same, same, bytes, metadataOf(o.metadata), { deadline }, (error, value) => {
        if (error === null) resolve(value!);
        else reject(error);
      });
      o.onCall?.(() => call.cancel());
    });
  return {
    access,
    audit,
    resources,
    freshness,
    metrics,
    pipeline,
    server,
    logs,
    spans: [],
    get connection() {
      return state.connection;
    },
    set connection(connection) {
      state.connection = connection;
    },
    raw,
    async call(method, request, o) {
      try {
        const bytes = await raw(methodPath(method), Buffer.from(toBinary(method.input, create(method.input, request))), o);
        return { answer: fromBinary(method.output, bytes), error: undefined, reason: undefined, status: undefined };
      } catch (error) {
        const status = statusOfError(error as ServiceError);
        return { answer: undefined, error: error as ServiceError, reason: status && reasonOfStatus(status), status };
      }
    },
    open(method, request) {
      const stream = client.makeServerStreamRequest(
        methodPath(method),
        (r: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input, r)),
        (b: Buffer) => fromBinary(method.output, b),
        create(method.input, request),
      );
      stream.on("error", () => undefined);
      return stream;
    },
    reflect(version, requests) {
      const call = client.makeBidiStreamRequest(
        `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
        (bytes: Buffer) => bytes,
        (bytes: Buffer) => fromBinary(ServerReflectionResponseSchema, bytes),
      );
      for (const request of requests) {
        call.write(Buffer.isBuffer(request) ? request : Buffer.from(toBinary(ServerReflectionRequestSchema, create(ServerReflectionRequestSchema, request))));
      }
      call.end();
      return new Promise((resolve, reject) => {
        const answers: ServerReflectionResponse[] = [];
        call.on("data", (answer: ServerReflectionResponse) => answers.push(answer));
        call.on("error", reject);
        call.on("end", () => resolve(answers));
      });
    },
    leave() {
      server.grpc.drain(`127.0.0.1:${port}`, 60_000);
    },
    async close() {
      await pipeline.drain(0);
      client.close();
      server.grpc.forceShutdown();
    },
  };
}

export function statusOfError(error: ServiceError): Status | undefined {
  const bytes = error.metadata.get("grpc-status-details-bin")[0];
  return bytes instanceof Buffer ? fromBinary(StatusSchema, bytes) : undefined;
}

export function reasonOfStatus(status: Status): string | undefined {
  const info = status.details.find((detail) => detail.typeUrl.endsWith("google.rpc.ErrorInfo"));
  return info && fromBinary(ErrorInfoSchema, info.value).reason;
}

/** Waits until `ready` holds; the test's own timeout ends a wait that never does. */
export async function until(ready: () => boolean): Promise<void> {
  while (!ready()) await new Promise((resolve) => setImmediate(resolve));
}

/** Handlers of a service of which the test needs only some; the others throw. */
export function some<S extends ServiceShape & { methods: DescMethod[] }>(service: S, handlers: Partial<Handlers<S>>): Handlers<S> {
  const missing = (): never => {
    throw new Error("not part of this test");
  };
  return { ...Object.fromEntries(service.methods.map((method) => [method.localName, missing])), ...handlers } as Handlers<S>;
}
