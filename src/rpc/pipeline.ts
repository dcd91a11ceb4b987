import { setImmediate as nextTurn } from "node:timers/promises";
import type { DescMessage, DescMethod, Message } from "@bufbuild/protobuf";
import type { sendUnaryData, ServerUnaryCall, ServerWritableStream } from "@grpc/grpc-js";
import { LeaseholdError, type Reason } from "../base/errors.ts";
import { type Counter, type Histogram, type Metrics, SECONDS } from "../base/metrics.ts";
import { Admission } from "./admission.ts";
import type { Authorized } from "./call.ts";
import type { CallState } from "./call-state.ts";
import type { Collaborators } from "./collaborators.ts";
import type { Answer, Handlers, ServiceShape } from "./definition.ts";
import { Denials } from "./denials.ts";
import { METHODS, type MethodRow, type RequestFacts } from "./methods.ts";
import { Openings } from "./openings.ts";
import type { PipelineOptions } from "./options.ts";
import type { Out } from "./out.ts";
import { RateLimit } from "./rate-limit.ts";
import { StreamCall } from "./stream-call.ts";
import { StreamJudge } from "./stream-judge.ts";
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
/** Streams ended between two turns of the event loop: some milliseconds. */
const DRAIN_SLICE = 100;

/** Everything calls share: collaborators, limits, and the set of calls under way. */
export class Pipeline {
  readonly with: Collaborators;
  readonly options: PipelineOptions;
  readonly admission: Admission;
  readonly openings: Openings;
  readonly rate: RateLimit;
  readonly denials: Denials;
  /** Looks after the open streams when policies change. */
  readonly judge: StreamJudge;
  readonly #calls = new Set<CallState>();
  readonly #streams = new Set<StreamCall>();
  /** Ended, but with messages that their clients have not taken; and until when they may (Unix milliseconds). */
  readonly #lingering = new Map<StreamCall, number>();
  readonly #sweeper: NodeJS.Timeout;
  #onIdle: (() => void) | undefined;

  constructor(collaborators: Collaborators, options: PipelineOptions) {
    this.with = collaborators;
    this.options = options;
    this.admission = new Admission(options.maxInFlight, options.maxStreams);
    this.openings = new Openings(options.maxOpening);
    this.rate = new RateLimit(options.rate);
    this.denials = new Denials(collaborators.audit, options.denialWindowMs);
    this.judge = new StreamJudge(collaborators.access, this.#streams);
    const { metrics } = collaborators.observer;
    metrics.observe("leasehold_rpc_in_flight", "Unary calls under way.", () => this.admission.calls);
    metrics.observe("leasehold_rpc_streams", "Open streams.", () => this.admission.streams);
    metrics.observe("leasehold_rpc_streams_waiting", "Streams that wait for their turn to open.", () => this.openings.waiting);
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
    return this.#calls.size + this.#streams.size;
  }

  enter(call: CallState): void {
    if (call instanceof StreamCall) {
      this.#streams.add(call);
      this.admission.streams++;
    } else {
      this.#calls.add(call);
      this.admission.calls++;
    }
  }

  leave(call: CallState, outcome: "ok" | Reason | "CANCELLED"): void {
    if (call instanceof StreamCall) {
      if (!this.#streams.delete(call)) return;
      this.admission.streams--;
    } else {
      if (!this.#calls.delete(call)) return;
      this.admission.calls--;
    }
    count(this.with.observer.metrics, call.method, outcome);
    call.method.seconds.observe((Date.now() - call.startedAt) / 1000);
    if (this.size === 0) this.#onIdle?.();
  }

  /** An ended stream whose client has not taken everything: it is reset if that does not change. */
  linger(stream: StreamCall): void {
    this.#lingering.set(stream, Date.now() + this.options.resetMs);
  }

  /** The HTTP/2 stream is closed. */
  freed(stream: StreamCall): void {
    this.#lingering.delete(stream);
  }

  /** Looks at every stream: its connection's rights (those of unary calls are checked when they start), its client's pace, its age. */
  sweep(now: number): void {
    for (const [stream, until] of this.#lingering) {
      if (now < until) continue;
      this.#lingering.delete(stream);
      stream.reset();
    }
    for (const stream of this.#streams) stream.sweep(now);
  }

  /** Refuses new calls, ends the streams with their resume tokens, waits for the rest, and after `graceMs` ends it too. */
  async drain(graceMs: number): Promise<void> {
    this.admission.draining = true;
    let ended = 0;
    for (const stream of this.#streams) {
      stream.end(new LeaseholdError("DRAINING"));
      // oxlint-disable-next-line no-await-in-loop -- gives the calls under way their turn
      if (++ended % DRAIN_SLICE === 0) await nextTurn();
    }
    this.denials.flush();
    if (this.size > 0) await this.#idle(graceMs);
    for (const call of [...this.#calls, ...this.#streams]) call.end(new LeaseholdError("DRAINING"));
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
