import type { DescMessage, Message } from "@bufbuild/protobuf";
import type { ServerWritableStream } from "@grpc/grpc-js";
import { LeaseholdError, type Reason } from "../base/errors.ts";
import type { AuditEntry } from "../model/audit.ts";
import { authorize, denied, resolveTarget, type Target } from "./authorize.ts";
import type { ItemRecord } from "./call.ts";
import { CallState } from "./call-state.ts";
import { type Answer, encode } from "./definition.ts";
import type { Out } from "./out.ts";
import type { ErasedStream, Method, Pipeline } from "./pipeline.ts";
import { grpcError, reasonOf } from "./status.ts";
import { isIdentified, letIn, timerMs } from "./steps.ts";

/** What a `write` to an ended stream rejects with. The status is decided already, so nobody sees it. */
class StreamEnded extends Error {
  override readonly name = "StreamEnded";
}

/**
 * One server stream: the same steps as a unary call up to the handler, then the handler writes. What the stream discloses is on record
 * before it goes out: the call's own record (or its items') before the first message, later items before the message they belong to. It ends exactly
 * once: by its handler, its caller, its deadline, its connection's certificate or the drain.
 */
export class StreamCall extends CallState implements Out<DescMessage> {
  readonly streaming = true;
  resumeToken: (() => string) | undefined;
  readonly #stream: ServerWritableStream<Buffer, Buffer>;
  #ended = false;
  /** What was applied when the stream's rights were last judged, or more: what is disclosed was decided on at least that. */
  #judgedOn: number;
  #opened = false;
  #timer: NodeJS.Timeout | undefined;
  /** Wakes the writer that waits for the client; called on drain and at the end. */
  #wake: (() => void) | undefined;

  constructor(pipeline: Pipeline, method: Method, raw: ServerWritableStream<Buffer, Buffer>) {
    super(pipeline, method, raw);
    this.#stream = raw;
    this.#judgedOn = pipeline.with.freshness.applied;
  }

  start(): void {
    this.pipeline.enter(this);
    let request: Message;
    try {
      request = letIn(this);
    } catch (error) {
      this.#recordLater(reasonOf(error));
      this.#close(error);
      return;
    }
    this.#stream.once("cancelled", () => this.#gone());
    this.#stream.on("drain", () => this.#wake?.());
    const ms = timerMs(this);
    if (ms !== undefined) this.#timer = setTimeout(() => this.end(new LeaseholdError("DEADLINE_TOO_SHORT")), ms);
    this.#run(request).then(
      () => this.#close(undefined),
      (error: unknown) => this.#fail(error),
    );
  }

  end(error: LeaseholdError): void {
    if (this.#ended) return;
    if (this.#opened) this.#recordLater(error.reason);
    this.#close(this.#withToken(error));
  }

  async write(message: Answer<DescMessage>): Promise<void> {
    await this.#disclose();
    this.#check();
    if (this.#stream.write(encode(this.method.desc.output, message))) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    this.#wake = undefined;
    this.#check();
  }

  async #run(request: Message): Promise<void> {
    const { row, validate, handler } = this.method;
    const target = await resolveTarget(row, request, this.method.facts, this.pipeline.with.resources);
    if (!isIdentified(this)) throw new LeaseholdError("PRINCIPAL_INVALID");
    const judge = (found: Target): void => {
      if (isIdentified(this)) authorize(this, row, request, found, this.pipeline.with.access);
    };
    this.#judge = () => judge(target);
    authorize(this, row, request, target, this.pipeline.with.access);
    validate(request);
    this.#check();
    await (handler as ErasedStream)(request, this, this);
    if (row.resource.kind === "set" && !this.asked) throw new LeaseholdError("INTERNAL", "the handler of a set asked for no permission");
    await this.#disclose();
  }

  /** Repeats the call's own authorization; set once there is a target. */
  #judge: () => void = () => undefined;

  /** Makes durable what the next message discloses, and judges it anew when that showed that this process was behind. */
  async #disclose(): Promise<void> {
    this.#check();
    const { row } = this.method;
    if (row.resource.kind === "set" && !this.asked) throw new LeaseholdError("INTERNAL", "the handler of a set asked for no permission");
    if (this.#opened && this.items.length === 0) return;
    const items = this.items;
    const entries = this.entries("ok");
    this.items = [];
    this.#opened = true;
    const fresh = await this.#durable(entries);
    if (fresh <= this.#judgedOn) return;
    await this.pipeline.with.freshness.catchUp(fresh);
    this.#judgedOn = fresh;
    this.#judge();
    for (const item of items) if (item.outcome === "ok") this.#judgeItem(item);
  }

  #judgeItem({ path, capability }: ItemRecord): void {
    if (!this.allows(path, capability)) throw denied(capability ?? this.capability, path);
  }

  #durable(entries: readonly AuditEntry[]): Promise<number> {
    return new Promise((resolve, reject) => {
      let pending = entries.length;
      let newest = 0;
      const done = (error: Error | undefined, fresh: number): void => {
        if (error !== undefined) reject(new LeaseholdError("AUDIT_UNAVAILABLE", undefined, { cause: error }));
        newest = Math.max(newest, fresh);
        if (--pending === 0) resolve(newest);
      };
      for (const entry of entries) this.pipeline.with.audit.append(entry, done);
    });
  }

  /** A handler's failure before anything was disclosed is answered after its record, like a unary call's; later ones at once. */
  #fail(error: unknown): void {
    if (this.#ended || error instanceof StreamEnded) return;
    const reason = reasonOf(error);
    if (reason === "PERMISSION_DENIED" && this.principal !== undefined) this.pipeline.rate.penalize(this.principal.id, Date.now());
    if (this.#opened) {
      this.#recordLater(reason);
      this.#close(this.#withToken(error));
      return;
    }
    this.pipeline.denials.append(this.entry(reason), (failed) => {
      this.#close(failed === undefined ? error : new LeaseholdError("AUDIT_UNAVAILABLE", undefined, { cause: failed }));
    });
  }

  #recordLater(reason: Reason): void {
    this.pipeline.denials.append(this.entry(reason), () => undefined);
  }

  #withToken(error: unknown): unknown {
    const token = this.resumeToken?.();
    if (token === undefined || !(error instanceof LeaseholdError) || "resume_token" in error.metadata) return error;
    return new LeaseholdError(error.reason, error.message, { metadata: { ...error.metadata, resume_token: token }, cause: error });
  }

  #check(): void {
    if (this.#ended) throw new StreamEnded();
  }

  #gone(): void {
    if (this.#ended) return;
    this.#leave("CANCELLED", undefined);
  }

  #close(error: unknown): void {
    if (this.#ended) return;
    this.#leave(error === undefined ? "ok" : reasonOf(error), error);
    if (error === undefined) this.#stream.end();
    else this.#stream.emit("error", grpcError(error, this.requestId));
  }

  #leave(outcome: "ok" | Reason | "CANCELLED", error: unknown): void {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.abort(error instanceof LeaseholdError ? error : undefined);
    this.#wake?.();
    this.observe(outcome, error);
    this.pipeline.leave(this, outcome);
  }
}
