import { type Change, isRotationChange } from "../../model/event.ts";

/** Events are written one after the other into chunks, of which each is a view: an allocation of its own would cost more than the writing. */
const CHUNK_BYTES = 32 * 1024;
/** More than every field but the texts and lists takes. */
const FIXED_BYTES = 128;
const VARINT_BYTES = 10;
const LEASE_ROOT = "leases/";

let chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
let at = 0;

/**
 * The Event of a change, without values, as protobuf writes it (held equal by a test). Written by hand: a catch-up is 150,000 of them a second, and `toBinary(create())` takes
 * 3 µs each, this 0.3.
 */
export function writeEvent(change: Change, snapshot: boolean): Uint8Array {
  const most = FIXED_BYTES + 3 * (change.path.length + change.principal.length) + change.versions.length * VARINT_BYTES;
  if (at + most > chunk.length) {
    chunk = Buffer.allocUnsafeSlow(Math.max(CHUNK_BYTES, most));
    at = 0;
  }
  const from = at;
  number(1, change.revision);
  number(2, change.type);
  text(3, change.path);
  time(4, change.at);
  if (snapshot) number(5, 1);
  number(6, change.version);
  if (change.versions.length > 0) list(7, change.versions);
  if (change.leaseId !== undefined) text(8, LEASE_ROOT + change.leaseId);
  text(9, change.principal);
  const isRotation = isRotationChange(change.type);
  if (change.expireAt !== undefined && !isRotation) time(10, change.expireAt);
  if (change.removed) number(12, 1);
  if (change.expireAt !== undefined && isRotation) time(13, change.expireAt);
  return chunk.subarray(from, at);
}

function number(field: number, value: number): void {
  if (value === 0) return;
  chunk[at++] = field << 3;
  varint(value);
}

function text(field: number, value: string): void {
  if (value === "") return;
  chunk[at++] = (field << 3) | 2;
  // Paths and SPIFFE ids are ASCII, and short; what is not goes the long way.
  const lengthAt = at;
  const size = value.length < 128 ? 1 : 2;
  at += size;
  let i = 0;
  for (; i < value.length; i++) {
    const code = value.charCodeAt(i);
    if (code >= 128) break;
    chunk[at + i] = code;
  }
  if (i < value.length) {
    at = lengthAt;
    const bytes = Buffer.from(value);
    varint(bytes.length);
    at += bytes.copy(chunk, at);
    return;
  }
  if (size === 1) chunk[lengthAt] = value.length;
  else {
    chunk[lengthAt] = (value.length & 127) | 128;
    chunk[lengthAt + 1] = value.length >>> 7;
  }
  at += value.length;
}

/** A google.protobuf.Timestamp of Unix milliseconds. */
function time(field: number, ms: number): void {
  const seconds = Math.floor(ms / 1000);
  const nanos = (ms - seconds * 1000) * 1_000_000;
  chunk[at++] = (field << 3) | 2;
  const lengthAt = at++;
  number(1, seconds);
  number(2, nanos);
  chunk[lengthAt] = at - lengthAt - 1;
}

function list(field: number, values: readonly number[]): void {
  chunk[at++] = (field << 3) | 2;
  let length = 0;
  for (const value of values) length += sizeOf(value);
  varint(length);
  for (const value of values) varint(value);
}

function varint(value: number): void {
  let rest = value;
  while (rest > 127) {
    chunk[at++] = (rest % 128) | 128;
    rest = Math.floor(rest / 128);
  }
  chunk[at++] = rest;
}

function sizeOf(value: number): number {
  let size = 1;
  for (let rest = value; rest > 127; rest = Math.floor(rest / 128)) size++;
  return size;
}
