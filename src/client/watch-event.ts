import { inspect } from "node:util";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type Event, EventType } from "../gen/leasehold/v1/watch_service_pb.ts";
import { type Data, plainValues } from "./values.ts";

/** How a resource differs from what this watch had told of it, where the changes between are no longer kept. */
export type Difference = "created" | "changed" | "removed";

/** One event of a watch. Printing it shows no secret: `data` and `message` are the doors. */
export class WatchEvent {
  readonly #message: Event;
  /** Set on an event that stands for changes which are no longer kept; undefined on a change of the log, and on the entries of the snapshot that a watch began with. */
  readonly difference: Difference | undefined;
  /** A watch that goes on from here may repeat events, and skips none. Empty in a snapshot. */
  readonly resumeToken: string;

  constructor(message: Event, resumeToken: string, difference?: Difference) {
    this.#message = message;
    this.resumeToken = resumeToken;
    this.difference = difference;
  }

  /** Place in commit order; for an entry of a snapshot or a difference, the revision it was true at. */
  get revision(): number {
    return Number(this.#message.revision);
  }

  get type(): EventType {
    return this.#message.type;
  }

  /** The resource; for leases the role's path. */
  get path(): string {
    return this.#message.path;
  }

  /** When it was committed, by the database's clock. */
  get time(): Date | undefined {
    return dateOf(this.#message.time);
  }

  /** True for what was there already: an entry of a snapshot. */
  get snapshot(): boolean {
    return this.#message.snapshot;
  }

  /** For secrets: the version it is about; 0 for others. */
  get version(): number {
    return Number(this.#message.version);
  }

  /** For leases: `leases/<id>`; empty for others. */
  get leasePath(): string {
    return this.#message.leasePath;
  }

  /** For leases: who holds it. */
  get principal(): string {
    return this.#message.principal;
  }

  /** For leases: when it ends, or would have. */
  get expireTime(): Date | undefined {
    return dateOf(this.#message.expireTime);
  }

  /** True when the resource is gone. */
  get removed(): boolean {
    return this.#message.removed;
  }

  /** With `includeValues`, on a new version of a secret that may be read: its data. Empty otherwise. */
  get data(): Data {
    return plainValues(this.#message.data);
  }

  /** The message as the API has it. */
  get message(): Event {
    return this.#message;
  }

  toJSON(): object {
    const { revision, path, version, leasePath, removed, snapshot, difference } = this;
    return {
      revision,
      type: Object.entries(EventType).find(([, value]) => value === this.type)?.[0] ?? this.type,
      path,
      version,
      leasePath,
      removed,
      snapshot,
      difference,
    };
  }

  [inspect.custom](): string {
    return `WatchEvent ${inspect(this.toJSON())}`;
  }
}

export function dateOf(time: Event["time"]): Date | undefined {
  return time === undefined ? undefined : timestampDate(time);
}
