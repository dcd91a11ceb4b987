import { randomFillSync } from "node:crypto";

const POOL_BYTES = 8192;
const pool = Buffer.alloc(POOL_BYTES);
let used = POOL_BYTES;

/** Random bytes for keys, salts and passwords, drawn from the system's generator 8 KiB at a time (a call for each few bytes cost 2 µs and more). What is handed out is wiped from the pool. */
export function randomPooled(count: number): Buffer {
  if (used + count > POOL_BYTES) {
    if (count > POOL_BYTES) throw new RangeError("too many random bytes at once");
    randomFillSync(pool);
    used = 0;
  }
  const bytes = Buffer.allocUnsafeSlow(count);
  pool.copy(bytes, 0, used, used + count);
  pool.fill(0, used, used + count);
  used += count;
  return bytes;
}
