import type { ServerHttp2Stream } from "node:http2";
import type { DescMessage, Message } from "@bufbuild/protobuf";
import type { ServerWritableStream } from "@grpc/grpc-js";
import { LeaseholdError, type Reason } from "../base/errors.ts";
import type { AuditEntry } from "../model/audit.ts";
import { authorize, denied, resolveTarget, type Target } from "./authorize.ts";
import type { ItemRecord } from "./call.ts";
import { CallState } from "./call-state.ts";
import { refusalOf } from "./connection.ts";
import { type Answer, encodeFrame } from "./definition.ts";
import { isLeaving, openFrames, resetStream, untaken } from "./http2-stream.ts";
import type { Place } from "./openings.ts";
import type { Out } from "./out.ts";
import type { ErasedStream, Method, Pipeline } from "./pipeline.ts";
import { grpcError, reasonOf } from "./status.ts";
import { isIdentified, letIn, timerMs } from "./steps.ts";

/** What a `write` to an ended stream rejects with. The status is decided already, so nobody sees it. */
class StreamEnded extends Error {
  override readonly name = "StreamEnded";
}

/** Streams end at their age, and on a connection that is being left, spread over this part around it. */
const JITTER = 0.2;

/**
 * One server stream: the same steps as a unary call up to the handler, then the handler writes. What the stream discloses is on record
 * before it goes out: the call's own record (or its items') before the first message, later items before the message they belong to. It ends exactly
 * once: by its handler, its caller, its deadline, its age, its connection's certificate, a change of policy, a client that does not read, or the drain.
 */
export class StreamCall extends CallState implements Out<DescMessage> {
  readonly streaming = true;
  resumeToken: (() => string) | undefined;
  judge: (() => void) | undefined;
  onEnd: (() => void) | undefined;
  readonly #stream: ServerWritableStream<Buffer, Buffer>;
  /** Where messages are written, from the first one on. */
  #frames: ServerHttp2Stream | undefined;
  #ended = false;
  /** It is to end as soon as its record is written; nothing is sent any more. */
  #condemned = false;
  /** What was applied when the stream's rights were last judged, or more: what is disclosed was decided on at least that. */
  #judgedOn: number;
  /** The policies its rights were last judged by. */
  #policies: object;
  #opened = false;
  /** While the first record waits or is being written. */
  #place: Place | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Wakes the writer that waits for the client; called on drain and at the end. */
  #wake: (() => void) | undefined;
  /** Bytes the client had not taken when the sweep last looked at a waiting writer, and since when it is that many. */
  #held = 0;
  #heldSince = 0;
  #endsAt: number;

  constructor(pipeline: Pipeline, method: Method, raw: ServerWritableStream<Buffer, Buffer>) {
    super(pipeline, method, raw);
    this.#stream = raw;
    this.#judgedOn = pipeline.with.freshness.applied;
    this.#policies = pipeline.with.access.policies;
    this.#endsAt = this.startedAt + pipeline.options.maxStreamMs * (1 - JITTER / 2 + JITTER * Math.random());
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
    await this.send(message);
  }

  send(message: Answer<DescMessage>, handed?: () => void): Promise<void> | undefined {
    if (this.#opened && this.items.length === 0) return this.#push(message, handed);
    this.#check();
    return this.#disclose().then(() => this.#push(message, handed));
  }

  /** Ends a stream that the policies of now don't allow any more. */
  rejudge(): void {
    if (this.#ended || this.#condemned) return;
    try {
      this.#judgeAnew();
    } catch (error) {
      this.#fail(error, false);
    }
  }

  /** Called each second. Ends a stream whose connection lost its rights, whose client does not read, or whose time has come. */
  sweep(now: number): void {
    if (this.connection !== undefined) this.connection = this.pipeline.with.connections.connectionOf(this.connection.id) ?? this.connection;
    const refusal = refusalOf(this.connection, now);
    if (refusal !== undefined) return this.end(new LeaseholdError(refusal));
    if (this.#place?.waiting === true && now - this.startedAt >= this.pipeline.options.maxOpeningMs) return this.end(tooManyOpening());
    if (this.#isStalled(now)) return this.end(new LeaseholdError("WATCH_TOO_SLOW"));
    if (now >= this.#endsAt) return this.end(new LeaseholdError("DRAINING", "the stream is old enough", { metadata: { cause: "age" } }));
    const { leaveMs } = this.pipeline.options;
    if (this.#endsAt - now > leaveMs && isLeaving(this.#stream)) this.#endsAt = now + leaveMs * Math.random();
  }

  /** Frees what a client does not take, after its end. */
  reset(): void {
    resetStream(this.#stream);
  }

  #isStalled(now: number): boolean {
    const held = untaken(this.#stream);
    if (this.#wake === undefined || held === 0 || held !== this.#held) {
      this.#held = held;
      this.#heldSince = now;
      return false;
    }
    return now - this.#heldSince >= this.pipeline.options.maxStallMs;
  }

  /** Undefined when the next message may follow at once. */
  #push(message: Answer<DescMessage>, handed: (() => void) | undefined): Promise<void> | undefined {
    this.#check();
    if (this.#policies !== this.pipeline.with.access.policies) this.#judgeAnew();
    const frame = encodeFrame(this.method.desc.output, message);
    const frames = (this.#frames ??= openFrames(this.#stream));
    handed?.();
    if (frames.write(frame)) return undefined;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    frames.once("drain", resolve);
    return promise.then(() => {
      this.#wake = undefined;
      this.#check();
    });
  }

  async #run(request: Message): Promise<void> {
    const { row, validate, handler } = this.method;
    const target = await resolveTarget(row, request, this.method.facts, this.pipeline.with.resources);
    if (!isIdentified(this)) throw new LeaseholdError("PRINCIPAL_INVALID");
    const judge = (found: Target): void => {
      if (isIdentified(this)) authorize(this, row, request, found, this.pipeline.with.access);
    };
    this.#judge = () => judge(target);
    this.#policies = this.pipeline.with.access.policies;
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
    if (!this.#opened) {
      this.#place ??= this.pipeline.openings.enter();
      if (this.#place.turn !== undefined) await this.#place.turn;
      this.#check();
    }
    const items = this.items;
    const entries = this.entries("ok");
    this.items = [];
    this.#opened = true;
    const fresh = await this.#durable(entries);
    this.#leavePlace();
    if (fresh <= this.#judgedOn) return;
    await this.pipeline.with.freshness.catchUp(fresh);
    this.#judgedOn = fresh;
    this.#judgeAnew();
    for (const item of items) if (item.outcome === "ok") this.#judgeItem(item);
  }

  /** Its own authorization and its handler's, by the policies of now. */
  #judgeAnew(): void {
    this.#policies = this.pipeline.with.access.policies;
    this.#judge();
    this.judge?.();
  }

  #judgeItem({ path, capability }: ItemRecord): void {
    if (!this.allows(path, capability)) throw denied(capability ?? this.capability, path);
  }

  #leavePlace(): void {
    this.#place?.leave();
    this.#place = undefined;
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

  /** A failure before anything was disclosed is answered after its record, like a unary call's; later ones at once. @param asked false: a denial that the caller did not ask for costs him nothing. */
  #fail(error: unknown, asked = true): void {
    if (this.#ended || this.#condemned || error instanceof StreamEnded) return;
    this.#condemned = true;
    const reason = reasonOf(error);
    if (asked && reason === "PERMISSION_DENIED" && this.principal !== undefined) this.pipeline.rate.penalize(this.principal.id, Date.now());
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
    if (token === undefined || token === "" || !(error instanceof LeaseholdError) || "resume_token" in error.metadata) return error;
    return new LeaseholdError(error.reason, error.message, { metadata: { ...error.metadata, resume_token: token }, cause: error });
  }

  /** Nothing leaves on a connection whose certificate has ended, be it a moment before the sweep. */
  #check(): void {
    if (this.#ended || this.#condemned) throw new StreamEnded();
    const refusal = refusalOf(this.connection, Date.now());
    if (refusal === undefined) return;
    this.end(new LeaseholdError(refusal));
    throw new StreamEnded();
  }

  #gone(): void {
    this.pipeline.freed(this);
    if (!this.#ended) this.#leave("CANCELLED", undefined);
  }

  #close(error: unknown): void {
    if (this.#ended) return;
    this.#leave(error === undefined ? "ok" : reasonOf(error), error);
    if (error === undefined) this.#stream.end();
    else this.#stream.emit("error", grpcError(error, this.requestId));
    // The status waits behind what the client has not taken.
    if (untaken(this.#stream) > 0) this.pipeline.linger(this);
  }

  #leave(outcome: "ok" | Reason | "CANCELLED", error: unknown): void {
    this.#ended = true;
    this.#leavePlace();
    clearTimeout(this.#timer);
    this.abort(error instanceof LeaseholdError ? error : undefined);
    this.#wake?.();
    this.observe(outcome, error);
    this.pipeline.leave(this, outcome);
    this.onEnd?.();
  }
}

/** Spread over some seconds, so that they don't come again all at once. */
function tooManyOpening(): LeaseholdError {
  return new LeaseholdError("RATE_LIMITED", "too many streams are being opened", { retryAfterMs: 1000 + Math.round(4000 * Math.random()) });
}
