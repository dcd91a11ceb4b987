/** Far above any answer to our statements; a length field may claim 4 GiB. */
const MAX_MESSAGE_BYTES = 1 << 24;
const HEADER_BYTES = 5;
const ERROR = 0x45; // 'E'
const NOTICE = 0x4e; // 'N'

/**
 * Cuts a server's bytes into whole messages before pg's parser sees them, and refuses those it can't bear: on an error or notice whose
 * field list has no end it spins for ever, which stops the whole process (pg-protocol 1.x, `parseErrorMessage`). So a target, or whoever
 * answers in its place, could hang the broker.
 */
export class Frames {
  #pending: Buffer = Buffer.alloc(0);

  /** The whole messages that `chunk` completes, undefined for none yet. Throws an Error for a malformed one; then the connection is over. */
  push(chunk: Buffer): Buffer | undefined {
    const buffer = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    let offset = 0;
    while (offset + HEADER_BYTES <= buffer.length) {
      const length = buffer.readUInt32BE(offset + 1);
      if (length < 4 || length > MAX_MESSAGE_BYTES) throw new Error("malformed message length");
      const end = offset + 1 + length;
      if (end > buffer.length) break;
      const type = buffer[offset];
      if ((type === ERROR || type === NOTICE) && !isFieldList(buffer.subarray(offset + HEADER_BYTES, end))) throw new Error("malformed error message");
      offset = end;
    }
    this.#pending = buffer.subarray(offset);
    return offset === 0 ? undefined : buffer.subarray(0, offset);
  }
}

/** (type byte, text, NUL)* NUL, and nothing after it. */
function isFieldList(body: Buffer): boolean {
  for (let at = 0; at < body.length;) {
    if (body[at] === 0) return at === body.length - 1;
    const end = body.indexOf(0, at + 1);
    if (end === -1) return false;
    at = end + 1;
  }
  return false;
}
