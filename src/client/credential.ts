import { inspect } from "node:util";
import { timestampDate, timestampMs } from "@bufbuild/protobuf/wkt";
import type { Lease } from "../gen/leasehold/v1/lease_pb.ts";
import { type Data } from "./values.ts";

/** A credential on lease. Printing it shows no secret: `data` is the door. */
export class Credential {
  readonly #data: Data;
  #lease: Lease;

  constructor(lease: Lease, data: Data) {
    this.#lease = lease;
    this.#data = data;
  }

  /** What to connect with. PostgreSQL: username, password, host, port, database. */
  get data(): Data {
    return this.#data;
  }

  /** `leases/<id>`. */
  get leasePath(): string {
    return this.#lease.path;
  }

  /** Role path. */
  get rolePath(): string {
    return this.#lease.rolePath;
  }

  /** When it ends, as last renewed. The broker's clock, as all of them. */
  get expireTime(): Date {
    return timestampDate(this.#lease.expireTime!);
  }

  /** The most that renewal can reach. */
  get maxExpireTime(): Date {
    return timestampDate(this.#lease.maxExpireTime!);
  }

  /** The lease as the API has it, as last renewed. */
  get lease(): Lease {
    return this.#lease;
  }

  /** Called by its holder. */
  renewed(lease: Lease): void {
    this.#lease = lease;
  }

  toJSON(): object {
    return { leasePath: this.leasePath, rolePath: this.rolePath, expireTime: this.expireTime };
  }

  [inspect.custom](): string {
    return `Credential ${this.leasePath} of ${this.rolePath} until ${this.expireTime.toISOString()} [redacted]`;
  }
}

/** Times of a lease in milliseconds, by the broker's clock. */
export function timesOf(lease: Lease): { readonly renewAt: number; readonly expireAt: number; readonly maxExpireAt: number } {
  return { renewAt: timestampMs(lease.renewTime!), expireAt: timestampMs(lease.expireTime!), maxExpireAt: timestampMs(lease.maxExpireTime!) };
}
