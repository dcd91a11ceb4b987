import { fromBinary } from "@bufbuild/protobuf";
import { LeaseholdError } from "../../base/errors.ts";
import { SecretPayloadSchema } from "../../gen/leasehold/internal/v1/stored_pb.ts";
import { EventType, type WatchResponseSchema } from "../../gen/leasehold/v1/watch_service_pb.ts";
import type { Change } from "../../model/event.ts";
import type { SecretReader } from "../../secrets/read.ts";
import { resumeToken } from "../../watch/resume-token.ts";
import type { Sink, Step } from "../../watch/watch.ts";
import type { Authorized } from "../call.ts";
import { denied } from "../authorize.ts";
import type { Encoded } from "../encoded.ts";
import type { Out } from "../out.ts";
import { writeEvent } from "./event-writer.ts";
import { composeResponse, encodeEvent, eventOf, sharedEvent } from "./watch-message.ts";
import type { WatchRights } from "./watch-rights.ts";

/** Events in one message at most, and the bytes that end one early. */
const MAX_EVENTS = 500;
const MAX_BYTES = 256 * 1024;

export interface SenderDeps {
  readonly reader: SecretReader;
  readonly call: Authorized;
  readonly out: Out<typeof WatchResponseSchema>;
  readonly rights: WatchRights;
  readonly includeValues: boolean;
}

/** Turns the steps of one watch into messages: each event authorized as it is sent, several to a message, values as audited reads. */
export class WatchSender implements Sink {
  readonly #reader: SecretReader;
  readonly #call: Authorized;
  readonly #out: Out<typeof WatchResponseSchema>;
  readonly #rights: WatchRights;
  readonly #includeValues: boolean;
  #token: string;
  /** Events whose message waits for its records, and the paths of the values in it. */
  #waiting: readonly Change[] = [];
  #reads: string[] = [];

  /** @param token what the client came with. */
  constructor(deps: SenderDeps, token: string) {
    this.#reader = deps.reader;
    this.#call = deps.call;
    this.#out = deps.out;
    this.#rights = deps.rights;
    this.#includeValues = deps.includeValues;
    this.#token = token;
  }

  /** Goes on after everything that was handed over. */
  get token(): string {
    return this.#token;
  }

  /** Throws unless the watch may go on, and what waits to be sent may be. */
  judge(): void {
    this.#rights.judge();
    for (const change of this.#waiting) if (!this.#rights.sees(change)) throw denied("watch", change.path);
    for (const path of this.#reads) this.#call.authorizeItem(path, "read");
  }

  deliver(step: Step): Promise<void> | undefined {
    const changes = step.changes.length === 0 ? step.changes : this.#rights.seen(step.changes);
    if (changes.length === 0 && step.changes.length > 0 && !step.bookmark) {
      if (!step.snapshot) this.#token = tokenOf(step.epoch, step.revision);
      return undefined;
    }
    if (this.#includeValues && changes.some(hasValue)) return this.#sendValues(step, changes);
    if (changes.length <= MAX_EVENTS) return this.#send(step, changes, 0, changes.length);
    return this.#sendMany(step, changes);
  }

  async #sendMany(step: Step, changes: readonly Change[]): Promise<void> {
    for (let from = 0; from < changes.length; from += MAX_EVENTS) await this.#send(step, changes, from, Math.min(from + MAX_EVENTS, changes.length));
  }

  #send(step: Step, changes: readonly Change[], from: number, to: number): Promise<void> | undefined {
    if (step.shared && changes.length <= 1) {
      const { message, token } = this.#live(step, changes[0]);
      const pending = this.#out.send(message);
      this.#token = token;
      return pending;
    }
    const events: Uint8Array[] = [];
    for (let i = from; i < to; i++) events.push(step.shared ? sharedEvent(changes[i]!) : writeEvent(changes[i]!, step.snapshot));
    const share = step.shared || to === from;
    const { message, token } = this.#compose(step, events, to === changes.length ? undefined : changes[to - 1], share);
    const pending = this.#out.send(message);
    this.#token = token;
    return pending;
  }

  /** The message of one change, or of none: the usual one, for all who are given it after each other. */
  #live(step: Step, change: Change | undefined): Composed {
    if (live?.change !== change || live?.revision !== step.revision || live.epoch !== step.epoch) {
      const events = change === undefined ? [] : [sharedEvent(change)];
      live = { ...this.#compose(step, events, undefined, true), change, revision: step.revision, epoch: step.epoch };
    }
    return live;
  }

  async #sendValues(step: Step, changes: readonly Change[]): Promise<void> {
    let events: Uint8Array[] = [];
    let bytes = 0;
    let from = 0;
    for (const [i, change] of changes.entries()) {
      const event = hasValue(change) ? await this.#withValue(change, step.snapshot) : writeEvent(change, step.snapshot);
      events.push(event);
      bytes += event.length;
      const end = i + 1 === changes.length;
      if (!end && events.length < MAX_EVENTS && bytes < MAX_BYTES) continue;
      const { message, token } = this.#compose(step, events, end ? undefined : change, false);
      this.#waiting = changes.slice(from, i + 1);
      await this.#out.send(message, () => {
        this.#waiting = [];
        this.#reads = [];
        this.#token = token;
      });
      events = [];
      bytes = 0;
      from = i + 1;
    }
  }

  /** @param last the last change of a message that is not the step's last: a change is a transaction of its own, so the client may go on after it. */
  #compose(step: Step, events: Uint8Array[], last: Change | undefined, share: boolean): Composed {
    const revision = step.snapshot ? 0 : (last?.revision ?? step.revision);
    const token = step.snapshot ? "" : tokenOf(step.epoch, revision);
    const bookmark = step.bookmark && events.length === 0;
    const snapshotEnd = step.snapshotEnd && last === undefined;
    return { message: composeResponse({ epoch: String(step.epoch), revision, resumeToken: token, events, bookmark, snapshotEnd }, share), token };
  }

  /** Reads the version for an event that is to carry its value; what can't be read now leaves the event without. */
  async #withValue(change: Change, snapshot: boolean): Promise<Uint8Array> {
    const [call, reader] = [this.#call, this.#reader];
    const { path, version } = change;
    if (!call.allows(path, "read")) {
      call.recordItem({ path, outcome: "PERMISSION_DENIED", capability: "read" });
      return writeEvent(change, snapshot);
    }
    try {
      const { payload } = await reader.get(path, { kind: "version", version });
      call.recordItem({ path, outcome: "ok", version, capability: "read" });
      this.#reads.push(path);
      return encodeEvent({ ...eventOf(change, snapshot), data: fromBinary(SecretPayloadSchema, payload).data });
    } catch (error) {
      if (!(error instanceof LeaseholdError) || error.reason === "STORE_UNAVAILABLE") throw error;
      call.recordItem({ path, outcome: error.reason, capability: "read" });
      return writeEvent(change, snapshot);
    }
  }
}

interface Composed {
  readonly message: Encoded<typeof WatchResponseSchema>;
  readonly token: string;
}

let live: (Composed & { readonly change: Change | undefined; readonly revision: number; readonly epoch: number }) | undefined;

function hasValue(change: Change): boolean {
  // (A rotation's candidate is a version from the start, and the value only once CURRENT has moved to it.)
  return change.type === EventType.SECRET_VERSION_CREATED || change.type === EventType.ROTATION_SUCCEEDED;
}

let made = { epoch: -1, revision: -1, token: "" };

/** Thousands of watches are told the same one after the other. */
function tokenOf(epoch: number, revision: number): string {
  if (made.epoch !== epoch || made.revision !== revision) made = { epoch, revision, token: resumeToken({ epoch, revision }) };
  return made.token;
}
