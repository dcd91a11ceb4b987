import { create } from "@bufbuild/protobuf";
import { TimestampSchema, type Duration, type Timestamp } from "@bufbuild/protobuf/wkt";
import { invalid } from "../base/errors.ts";

/** Unix milliseconds → Timestamp; undefined stays undefined. */
export function timestamp(ms: number): Timestamp;
export function timestamp(ms: number | undefined): Timestamp | undefined;
export function timestamp(ms: number | undefined): Timestamp | undefined {
  if (ms === undefined) return undefined;
  const seconds = Math.floor(ms / 1000);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) });
}

/** Years 0001 to 9999 (google.protobuf.Timestamp); throws REQUEST_INVALID for `field` outside of them. */
export function milliseconds(value: Timestamp | undefined, field: string): number | undefined {
  if (value === undefined) return undefined;
  if (value.seconds < -62135596800n || value.seconds > 253402300799n || value.nanos < 0 || value.nanos > 999_999_999)
    throw invalid(field, "is not a valid timestamp");
  return Number(value.seconds) * 1000 + Math.floor(value.nanos / 1e6);
}

/** A length of time in milliseconds, zero or more; throws REQUEST_INVALID for `field` if negative or malformed. Rounds up to a whole millisecond. */
export function durationMs(value: Duration | undefined, field: string): number | undefined {
  if (value === undefined) return undefined;
  const ms = Number(value.seconds) * 1000 + Math.ceil(value.nanos / 1e6);
  if (ms < 0 || value.nanos < 0 || value.nanos > 999_999_999 || !Number.isSafeInteger(ms) || ms > 315_576_000_000_000)
    throw invalid(field, "is not a valid length of time");
  return ms;
}
