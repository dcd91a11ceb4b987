import { create } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Event, EventSchema, EventType } from "../gen/leasehold/v1/watch_service_pb.ts";
import type { Difference } from "./watch-event.ts";

/** What tells one state of a resource from another: never a value. */
interface State {
  /** A secret's current version; 0 for others. */
  readonly version: number;
  /** When it last changed; for leases, when it ends. Milliseconds. */
  readonly at: number;
  /** Lease: its role's path. */
  readonly rolePath?: string;
}

/**
 * What a watch has told its consumer of each resource, so that a snapshot can be told as the difference. It knows the resources a snapshot lists (secrets, leases, policies,
 * targets); other events (a finding, a role, a step of something) leave nothing behind that could be compared. One entry per resource, without values.
 */
export class Told {
  readonly #types: ReadonlySet<EventType>;
  /** Whether the consumer is told of a snapshot's secrets: they come as events of this type. */
  readonly #tellsEntries: boolean;
  readonly #known = new Map<string, State>();
  /** Told as removed by a difference: the log may still bring the removal itself. */
  readonly #gone = new Set<string>();
  #met = new Set<string>();

  /** @param types what the consumer asked for; empty: all. */
  constructor(types: ReadonlySet<EventType>) {
    this.#types = types;
    this.#tellsEntries = types.size === 0 || types.has(EventType.SECRET_VERSION_CREATED);
  }

  /** A change of the log. False when the snapshot has told it already. */
  change(event: Event): boolean {
    const key = keyOf(event);
    const known = this.#known.get(key);
    switch (event.type) {
      case EventType.SECRET_VERSION_CREATED:
      case EventType.ROTATION_SUCCEEDED:
        // Committed between the snapshot's revision and the reading of its page; told then, if such entries are wanted.
        if (this.#tellsEntries && known !== undefined && Number(event.version) <= known.version && msOf(event.time) <= known.at) return false;
        this.#set(key, stateOf(event));
        return true;
      case EventType.SECRET_VERSION_DELETED:
      case EventType.SECRET_VERSION_UNDELETED:
      case EventType.SECRET_VERSION_DESTROYED:
      case EventType.SECRET_METADATA_UPDATED:
        this.#set(key, { version: known?.version ?? 0, at: msOf(event.time) });
        return true;
      case EventType.LEASE_ISSUED:
        if (known !== undefined) return false;
        this.#set(key, stateOf(event));
        return true;
      case EventType.SECRET_RESTORED:
      case EventType.LEASE_RENEWED:
        this.#set(key, stateOf(event));
        return true;
      case EventType.POLICY_CHANGED:
      case EventType.TARGET_CHANGED:
        if (!event.removed) {
          this.#set(key, stateOf(event));
          return true;
        }
        return this.#remove(key);
      case EventType.SECRET_DELETED:
      case EventType.SECRET_PURGED:
      case EventType.LEASE_EXPIRED:
      case EventType.LEASE_REVOKED:
        return this.#remove(key);
      default:
        return true;
    }
  }

  beginSnapshot(): void {
    this.#met = new Set();
  }

  /** An entry of a snapshot: how it differs; undefined when that is told already. */
  entry(event: Event): Exclude<Difference, "removed"> | undefined {
    const key = keyOf(event);
    const known = this.#known.get(key);
    const state = stateOf(event);
    this.#met.add(key);
    this.#set(key, state);
    if (known === undefined) return "created";
    return this.#isSame(known, state) ? undefined : "changed";
  }

  /** What was told and is no longer there, as events. @param except resources that a snapshot does not list. */
  endSnapshot(revision: bigint, except: ReadonlySet<string>): Event[] {
    const gone = [...this.#known].filter(([key]) => !this.#met.has(key) && !except.has(key));
    for (const [key] of gone) {
      this.#known.delete(key);
      this.#gone.add(key);
    }
    this.#met = new Set();
    return gone.map(([key, state]) => removal(key, state, revision));
  }

  #isSame(known: State, state: State): boolean {
    if (known.version !== state.version) return false;
    // Who asked for some types only has not been told of what moved the time alone.
    return known.at === state.at || (this.#types.size > 0 && state.version > 0);
  }

  #set(key: string, state: State): void {
    this.#known.set(key, state);
    this.#gone.delete(key);
  }

  #remove(key: string): boolean {
    this.#known.delete(key);
    return !this.#gone.delete(key);
  }
}

function keyOf(event: Event): string {
  return event.leasePath === "" ? event.path : event.leasePath;
}

function stateOf(event: Event): State {
  if (event.leasePath !== "") return { version: 0, at: msOf(event.expireTime), rolePath: event.path };
  return { version: Number(event.version), at: msOf(event.time) };
}

function msOf(time: Event["time"]): number {
  return time === undefined ? 0 : timestampMs(time);
}

function removal(key: string, { version, at, rolePath }: State, revision: bigint): Event {
  const common = { revision, removed: true, snapshot: true };
  // Whether it expired or was revoked is not kept.
  if (rolePath !== undefined) return create(EventSchema, { ...common, type: EventType.LEASE_REVOKED, path: rolePath, leasePath: key, expireTime: timeOf(at) });
  const type = key.startsWith("policies/") ? EventType.POLICY_CHANGED : key.startsWith("targets/") ? EventType.TARGET_CHANGED : EventType.SECRET_DELETED;
  return create(EventSchema, { ...common, type, path: key, version: BigInt(version) });
}

function timeOf(ms: number): { seconds: bigint; nanos: number } {
  return { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1e6 };
}
