import { randomUUID } from "node:crypto";
import type { Span } from "@opentelemetry/api";
import type { ServerUnaryCall, ServerWritableStream } from "@grpc/grpc-js";
import type { LeaseholdError, Reason } from "../base/errors.ts";
import type { Actor, AuditEntry } from "../model/audit.ts";
import type { Capability } from "../model/capability.ts";
import type { PathScope } from "../model/path.ts";
import type { Principal } from "../model/principal.ts";
import { denied, overlaps } from "./authorize.ts";
import { authorized, type ItemRecord, type Stored } from "./call.ts";
import type { Connection } from "./connection.ts";
import type { Method, Pipeline } from "./pipeline.ts";
import { parseTraceParent } from "./trace-parent.ts";

type Raw = ServerUnaryCall<Buffer, Buffer> | ServerWritableStream<Buffer, Buffer>;

/** What every call carries through the pipeline. The steps narrow it to `Identified` and `Authorized`; a handler gets nothing less. */
export abstract class CallState {
  readonly pipeline: Pipeline;
  readonly method: Method;
  readonly raw: Raw;
  readonly startedAt = Date.now();
  readonly requestId: string = randomUUID();
  readonly traceId: string;
  readonly span: Span | undefined;
  abstract readonly streaming: boolean;
  deadlineAt = Number.POSITIVE_INFINITY;
  connection: Connection | undefined;
  principal: Principal | undefined;
  [authorized]: boolean = false;
  path = "";
  stored: Stored | undefined;
  recorded = false;
  version: number | undefined;
  lease: string | undefined;
  /** True once the handler has asked for any permission; a set handler that answers without is not let through. */
  asked = false;
  protected items: ItemRecord[] = [];
  protected undelivered: (() => void) | undefined;
  #abort: AbortController | undefined;
  #ended: LeaseholdError | undefined;

  constructor(pipeline: Pipeline, method: Method, raw: Raw) {
    this.pipeline = pipeline;
    this.method = method;
    this.raw = raw;
    const parent = parseTraceParent(raw.metadata.get("traceparent")[0]);
    this.span = pipeline.with.observer.spans?.start(method.action, parent);
    this.traceId = this.span?.spanContext().traceId ?? parent?.traceId ?? "";
    this.connection = pipeline.with.connections.connectionOf(raw.getPeer());
    this.principal = this.connection?.principal;
  }

  /** Ends the call with this error, whatever it is doing. Does nothing when it is answered already. */
  abstract end(error: LeaseholdError): void;

  get action(): string {
    return this.method.action;
  }

  get capability(): Capability | "" {
    return this.method.row.capability;
  }

  get cancelled(): boolean {
    return this.raw.cancelled || this.#ended !== undefined;
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    if (this.cancelled && !this.#abort.signal.aborted) this.#abort.abort(this.#ended);
    return this.#abort.signal;
  }

  actor(): Actor {
    return {
      principal: this.principal?.id ?? "",
      requestId: this.requestId,
      traceId: this.traceId,
      action: this.method.action,
      capability: this.method.row.capability,
      peer: this.connection?.peer ?? "",
    };
  }

  allows(path: string, capability: Capability | "" = this.capability): boolean {
    this.asked = true;
    return (
      capability !== "" && this.principal !== undefined && this.pipeline.with.access.decide(this.principal, capability, path, this.method.facts) === "allow"
    );
  }

  authorizeItem(path: string, capability: Capability | "" = this.capability): void {
    if (!this.allows(path, capability)) throw denied(capability, path);
  }

  authorizeScope(scope: PathScope, capability: Capability | "" = this.capability): void {
    if (scope.exact) return this.authorizeItem(scope.prefix, capability);
    if (!this.allowedPrefixes(capability).some((allowed) => overlaps(allowed, scope))) throw denied(capability, scope.prefix);
  }

  allowedPrefixes(capability: Capability | "" = this.capability): readonly PathScope[] {
    this.asked = true;
    return capability === "" || this.principal === undefined ? [] : this.pipeline.with.access.allowedPrefixes(this.principal, capability);
  }

  recordItem(item: ItemRecord): void {
    this.items.push(item);
  }

  onUndelivered(run: () => void): void {
    this.undelivered = run;
  }

  /** Makes `signal` abort; `reason` is undefined when the caller went by himself. */
  protected abort(reason: LeaseholdError | undefined): void {
    this.#ended ??= reason;
    this.#abort?.abort(reason);
  }

  /** The records this call is to leave: one per item, or one for itself. */
  protected entries(outcome: "ok" | Reason): AuditEntry[] {
    if (this.items.length === 0) return [this.entry(outcome)];
    return this.items.map(({ path, outcome: itsOwn, version, capability = this.capability }) => {
      const entry = { ...this.entry(itsOwn), path, capability };
      return version === undefined ? entry : { ...entry, version };
    });
  }

  protected entry(outcome: "ok" | Reason): AuditEntry {
    const entry: { -readonly [K in keyof AuditEntry]: AuditEntry[K] } = {
      principal: this.principal?.id ?? "",
      requestId: this.requestId,
      traceId: this.traceId,
      action: this.method.action,
      capability: this.method.row.capability,
      peer: this.connection?.peer ?? "",
      at: this.startedAt,
      path: this.path,
      outcome,
    };
    if (this.version !== undefined) entry.version = this.version;
    if (this.lease !== undefined) entry.lease = this.lease;
    return entry;
  }

  /** Ends the span and logs what our own people must see. `error` is what was thrown, not what the client was told. */
  protected observe(outcome: "ok" | Reason | "CANCELLED", error: unknown): void {
    if (outcome === "INTERNAL" || outcome === "AUDIT_UNAVAILABLE") {
      this.pipeline.with.observer.log.error({ requestId: this.requestId, action: this.action, outcome, err: error }, "call failed");
    }
    if (this.span === undefined) return;
    this.span.setAttributes({
      "rpc.system.name": "grpc",
      "rpc.method": this.action,
      "leasehold.request_id": this.requestId,
      "leasehold.principal": this.principal?.id ?? "",
      "leasehold.path": this.path,
      "leasehold.outcome": outcome,
    });
    if (outcome === "INTERNAL") this.span.setStatus({ code: 2 });
    this.span.end();
  }

  protected runUndelivered(): void {
    const run = this.undelivered;
    this.undelivered = undefined;
    if (run === undefined) return;
    try {
      run();
    } catch (error) {
      this.pipeline.with.observer.log.error({ requestId: this.requestId, action: this.action, err: error }, "clean-up of an undelivered answer failed");
    }
  }
}
