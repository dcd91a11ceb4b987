import type { DescMessage, DescMethod, Message } from "@bufbuild/protobuf";
import type { sendUnaryData, ServerUnaryCall, ServerWritableStream } from "@grpc/grpc-js";
import { LeaseholdError, type Reason } from "../base/errors.ts";
import { type Counter, type Histogram, type Metrics, SECONDS } from "../base/metrics.ts";
import { Admission } from "./admission.ts";
import type { Authorized } from "./call.ts";
import type { CallState } from "./call-state.ts";
import type { Collaborators } from "./collaborators.ts";
import { refusalOf } from "./connection.ts";
import type { Answer, Handlers, ServiceShape } from "./definition.ts";
import { Denials } from "./denials.ts";
import { METHODS, type MethodRow, type RequestFacts } from "./methods.ts";
import type { PipelineOptions } from "./options.ts";
import type { Out } from "./out.ts";
import { RateLimit } from "./rate-limit.ts";
import { StreamCall } from "./stream-call.ts";
import { UnaryCall } from "./unary-call.ts";
import { type Validate, validatorOf } from "./validate.ts";

/** Types erased: the compiler checked each handler against its method in `Handlers<S>`. */
export type ErasedUnary = (request: Message, call: Authorized) => Answer<DescMessage> | Promise<Answer<DescMessage>>;
export type ErasedStream = (request: Message, call: Authorized, out: Out<DescMessage>) => Promise<void>;

/** A method ready to be served. */
export interface Method {
  readonly desc: DescMethod;
  /** `SecretService/GetSecret` */
  readonly action: string;
  readonly row: MethodRow<unknown>;
  /** What conditions see of every call of it. */
  readonly facts: RequestFacts;
  readonly validate: Validate;
  readonly handler: ErasedUnary | ErasedStream;
  readonly seconds: Histogram;
  readonly outcomes: Map<string, Counter>;
}

const SWEEP_MS = 1000;

/** Everything calls share: collaborators, limits, and the set of calls under way. */
export class Pipeline {
  readonly with: Collaborators;
  readonly options: PipelineOptions;
  readonly admission: Admission;
  readonly rate: RateLimit;
  readonly denials: Denials;
  readonly #calls = new Set<CallState>();
  readonly #sweeper: NodeJS.Timeout;
  #onIdle: (() => void) | undefined;

  constructor(collaborators: Collaborators, options: PipelineOptions) {
    this.with = collaborators;
    this.options = options;
    this.admission = new Admission(options.maxInFlight, options.maxStreams);
    this.rate = new RateLimit(options.rate);
    this.denials = new Denials(collaborators.audit, options.denialWindowMs);
    const { metrics } = collaborators.observer;
    metrics.observe("leasehold_rpc_in_flight", "Unary calls under way.", () => this.admission.calls);
    metrics.observe("leasehold_rpc_streams", "Open streams.", () => this.admission.streams);
    this.#sweeper = setInterval(() => this.sweep(Date.now()), SWEEP_MS);
    this.#sweeper.unref();
  }

  /** Every method of a service with its row. Throws for a service that has no rows: default deny. */
  bind<S extends ServiceShape & { methods: DescMethod[] }>(service: S, handlers: Handlers<S>): Method[] {
    const { metrics } = this.with.observer;
    return service.methods.map((desc) => {
      const handler = (handlers as Readonly<Record<string, unknown>>)[desc.localName];
      const row = rowOf(desc);
      if (typeof handler !== "function" || row === undefined) throw new Error(`${desc.parent.typeName}/${desc.name} has no handler or no row`);
      const action = `${desc.parent.name}/${desc.name}`;
      const seconds = metrics.histogram("leasehold_rpc_seconds", "Time to answer a unary call, or length of a stream.", SECONDS, { method: action });
      const bound = handler.bind(handlers) as ErasedUnary | ErasedStream;
      return { desc, action, row, facts: { method: action }, validate: validatorOf(desc), handler: bound, seconds, outcomes: new Map() };
    });
  }

  unary(method: Method): (raw: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => void {
    return (raw, callback) => new UnaryCall(this, method, raw, callback).start();
  }

  stream(method: Method): (raw: ServerWritableStream<Buffer, Buffer>) => void {
    return (raw) => new StreamCall(this, method, raw).start();
  }

  get size(): number {
    return this.#calls.size;
  }

  enter(call: CallState): void {
    this.#calls.add(call);
    if (call.streaming) this.admission.streams++;
    else this.admission.calls++;
  }

  leave(call: CallState, outcome: "ok" | Reason | "CANCELLED"): void {
    if (!this.#calls.delete(call)) return;
    if (call.streaming) this.admission.streams--;
    else this.admission.calls--;
    count(this.with.observer.metrics, call.method, outcome);
    call.method.seconds.observe((Date.now() - call.startedAt) / 1000);
    if (this.#calls.size === 0) this.#onIdle?.();
  }

  /** Ends the streams whose connection lost its right to be answered; unary calls are checked when they start. */
  sweep(now: number): void {
    for (const call of this.#calls) {
      if (!call.streaming) continue;
      call.refreshConnection();
      const refusal = refusalOf(call.connection, now);
      if (refusal !== undefined) call.end(new LeaseholdError(refusal));
    }
  }

  /** Refuses new calls, ends the streams with their resume tokens, waits for the rest, and after `graceMs` ends it too. */
  async drain(graceMs: number): Promise<void> {
    this.admission.draining = true;
    for (const call of this.#calls) if (call.streaming) call.end(new LeaseholdError("DRAINING"));
    this.denials.flush();
    if (this.#calls.size > 0) await this.#idle(graceMs);
    for (const call of this.#calls) call.end(new LeaseholdError("DRAINING"));
    this.denials.flush();
    clearInterval(this.#sweeper);
  }

  #idle(graceMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, graceMs);
      this.#onIdle = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function rowOf(desc: DescMethod): MethodRow<unknown> | undefined {
  const table: Readonly<Record<string, Readonly<Record<string, MethodRow<never>>>>> = METHODS;
  return table[desc.parent.name]?.[desc.localName] as MethodRow<unknown> | undefined;
}

function count(metrics: Metrics, method: Method, outcome: string): void {
  let cell = method.outcomes.get(outcome);
  if (cell === undefined) {
    cell = metrics.counter("leasehold_rpc_total", "Calls answered, by method and outcome (`ok` or the error's reason).", { method: method.action, outcome });
    method.outcomes.set(outcome, cell);
  }
  cell.add();
}
