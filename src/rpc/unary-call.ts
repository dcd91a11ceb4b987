import type { DescMessage, Message } from "@bufbuild/protobuf";
import type { sendUnaryData, ServerUnaryCall } from "@grpc/grpc-js";
import { LeaseholdError, type Reason } from "../base/errors.ts";
import type { AuditEntry } from "../model/audit.ts";
import { authorize, resolveTarget, type Target } from "./authorize.ts";
import { CallState } from "./call-state.ts";
import { type Answer, encode } from "./definition.ts";
import type { ErasedUnary, Method, Pipeline } from "./pipeline.ts";
import { grpcError, reasonOf } from "./status.ts";
import { isIdentified, letIn, timerMs } from "./steps.ts";

type AnyAnswer = Answer<DescMessage>;

/** Outcomes that a newer policy or secret can't change. */
const FINAL: ReadonlySet<Reason> = new Set(["PATH_INVALID", "REQUEST_INVALID", "DEADLINE_TOO_SHORT", "DRAINING", "INTERNAL"]);

/**
 * One unary call:
 *
 *   start → attempt (resolve, authorize, validate, handle) → settle (records) → finish (answer)
 *
 * `settle` happens once an attempt, `finish` once a call. There is a second attempt at most: when the record of the first shows that this
 * process had not applied everything committed before it. The second is as of a point after the call began, so its answer is never stale and goes out
 * whatever is committed meanwhile.
 */
export class UnaryCall extends CallState {
  readonly streaming = false;
  readonly #callback: sendUnaryData<Buffer>;
  #request: Message | undefined;
  #attempts = 0;
  #handled = false;
  #settled = false;
  #answered = false;
  #validated = false;
  #timer: NodeJS.Timeout | undefined;
  #listening = false;
  #error: unknown;
  #answer: AnyAnswer | undefined;
  #pending = 0;
  #auditError: Error | undefined;
  #fresh = 0;
  /** What was applied when the attempt began: what it decided on is at least that new, and may be no newer, even if more is applied by the time its record is written. */
  #decidedOn = 0;
  /** Outcome and version that are on record already. */
  #recordedAs = "";

  constructor(pipeline: Pipeline, method: Method, raw: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) {
    super(pipeline, method, raw);
    this.#callback = callback;
  }

  start(): void {
    this.pipeline.enter(this);
    try {
      this.#request = letIn(this);
    } catch (error) {
      this.#refuse(error);
      return;
    }
    this.#attempt();
  }

  end(error: LeaseholdError): void {
    this.abort(error);
    if (!this.#settled) this.#settle(error);
  }

  #attempt(): void {
    this.#attempts++;
    this.#decidedOn = this.pipeline.with.freshness.applied;
    this.#settled = false;
    this.items = [];
    this.recorded = false;
    this.version = undefined;
    this.asked = false;
    try {
      const target = resolveTarget(this.method.row, this.#request, this.method.facts, this.pipeline.with.resources);
      if (target instanceof Promise) this.#wait(target, (found) => this.#serve(found));
      else this.#serve(target);
    } catch (error) {
      this.#settle(error);
    }
  }

  #serve(target: Target): void {
    const { access, freshness } = this.pipeline.with;
    const { auditReads, maxLagMs } = this.pipeline.options;
    const { row, validate, handler } = this.method;
    const request = this.#request!;
    let answer: AnyAnswer | Promise<AnyAnswer>;
    try {
      if (!isIdentified(this)) throw new LeaseholdError("PRINCIPAL_INVALID");
      authorize(this, row, request, target, access);
      if (!this.#validated) validate(request);
      this.#validated = true;
      if (row.audit === "read" && auditReads === "async" && freshness.lagMs > maxLagMs) throw new LeaseholdError("STORE_UNAVAILABLE");
      this.#handled = true;
      answer = (handler as ErasedUnary)(request, this);
    } catch (error) {
      this.#settle(error);
      return;
    }
    if (answer instanceof Promise) this.#wait(answer, (value) => this.#settle(undefined, value));
    else this.#settle(undefined, answer);
  }

  /** Goes on when the promise does; the deadline and the caller's going are watched meanwhile. What comes too late is undone, not answered. */
  #wait<T>(promise: Promise<T>, next: (value: T) => void): void {
    this.#watch();
    promise.then(
      (value) => {
        if (!this.#settled) next(value);
        else if (this.#handled) this.runUndelivered();
      },
      (error: unknown) => {
        if (!this.#settled) this.#settle(error);
      },
    );
  }

  #watch(): void {
    if (this.#timer === undefined) {
      const ms = timerMs(this);
      if (ms !== undefined) this.#timer = setTimeout(() => this.#expire(), ms);
    }
    if (this.#listening) return;
    this.#listening = true;
    this.raw.once("cancelled", () => this.abort(undefined));
  }

  #expire(): void {
    const error = new LeaseholdError("DEADLINE_TOO_SHORT");
    this.abort(error);
    if (!this.#settled) this.#settle(error);
  }

  /** A refusal before anything was looked at is answered at once; its record follows. */
  #refuse(error: unknown): void {
    this.#settled = true;
    this.#record(this.entry(reasonOf(error)), ignore);
    this.#finish(error);
  }

  #settle(error: unknown, answer?: AnyAnswer): void {
    this.#settled = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const { row } = this.method;
    if (error === undefined && row.resource.kind === "set" && !this.asked && this.#discloses(answer)) {
      error = new LeaseholdError("INTERNAL", "the handler of a set asked for no permission");
    }
    this.#error = error;
    this.#answer = answer;
    if (error === undefined && row.audit === "change" && this.recorded && this.items.length === 0) {
      this.#finish(undefined, answer);
      return;
    }
    const reason: "ok" | Reason = error === undefined ? "ok" : reasonOf(error);
    const known = `${reason} ${this.version ?? ""}`;
    if (this.items.length === 0 && known === this.#recordedAs) {
      this.#finish(error, answer); // the first attempt's record says the same
      return;
    }
    this.#recordedAs = known;
    const entries = this.#entries(reason);
    if (row.audit === "read" && this.#handled && reason !== "PERMISSION_DENIED" && this.pipeline.options.auditReads === "async") {
      const lost = (failed: Error | undefined): void => this.#logLost(failed);
      for (const entry of entries) this.#record(entry, lost);
      this.#finish(error, answer);
      return;
    }
    this.#pending = entries.length;
    const done = (failed: Error | undefined, fresh: number): void => this.#onRecord(failed, fresh);
    for (const entry of entries) this.#record(entry, done);
  }

  /** An empty answer, or a batch of nothing but errors, needed no permission. */
  #discloses(answer: AnyAnswer | undefined): boolean {
    if (this.items.length > 0 && this.items.every((item) => item.outcome !== "ok")) return false;
    return answer !== undefined && encode(this.method.desc.output, answer).length > 0;
  }

  /** An error leaves one record of the whole call, whatever its items came to; a denial costs its principal more than a call. */
  #entries(reason: "ok" | Reason): AuditEntry[] {
    if (reason === "ok") return this.entries("ok");
    if (reason === "PERMISSION_DENIED" && this.principal !== undefined) this.pipeline.rate.penalize(this.principal.id, this.startedAt);
    return [this.entry(reason)];
  }

  #record(entry: AuditEntry, done: (error: Error | undefined, fresh: number) => void): void {
    const sink = this.#handled && entry.outcome !== "PERMISSION_DENIED" ? this.pipeline.with.audit : this.pipeline.denials;
    try {
      sink.append(entry, done);
    } catch (error) {
      done(error instanceof Error ? error : new Error("audit append threw", { cause: error }), 0);
    }
  }

  #logLost(error: Error | undefined): void {
    if (error === undefined) return;
    this.pipeline.with.observer.log.error({ requestId: this.requestId, action: this.action, err: error }, "audit record lost");
  }

  #onRecord(error: Error | undefined, fresh: number): void {
    this.#auditError ??= error;
    this.#fresh = Math.max(this.#fresh, fresh);
    if (--this.#pending > 0) return;
    if (this.#auditError !== undefined) {
      this.#finish(new LeaseholdError("AUDIT_UNAVAILABLE", undefined, { cause: this.#auditError }));
    } else if (this.#isBehind()) {
      this.pipeline.with.freshness.catchUp(this.#fresh).then(
        () => this.#attempt(),
        (failed: unknown) => this.#finish(failed),
      );
    } else {
      this.#finish(this.#error, this.#answer);
    }
  }

  /** True when a newer policy or secret might answer otherwise. A change that has run is never run again. */
  #isBehind(): boolean {
    const { row } = this.method;
    if (this.#fresh <= this.#decidedOn || this.#attempts > 1 || row.repeat === false) return false;
    if (row.audit === "change" && this.#handled) return false;
    return this.#error === undefined || !FINAL.has(reasonOf(this.#error));
  }

  #finish(error: unknown, answer?: AnyAnswer): void {
    if (this.#answered) return;
    this.#answered = true;
    this.#settled = true;
    clearTimeout(this.#timer);
    let bytes: Buffer | undefined;
    if (error === undefined && answer !== undefined) {
      try {
        bytes = encode(this.method.desc.output, answer);
      } catch (cause) {
        error = cause;
      }
    }
    const gone = this.raw.cancelled;
    try {
      if (bytes === undefined) this.#callback(grpcError(error, this.requestId));
      else this.#callback(null, bytes);
    } catch (cause) {
      error = cause;
      bytes = undefined;
    }
    if (this.#answer !== undefined && (bytes === undefined || gone)) this.runUndelivered();
    const outcome = bytes === undefined ? reasonOf(error) : "ok";
    this.observe(outcome, error);
    this.pipeline.leave(this, gone ? "CANCELLED" : outcome);
  }
}

function ignore(): void {
  // a refusal is answered whether or not its record can be written
}
