/** A reader for the little DER we need (RFC 5280 fields that node:crypto does not show). Input may be hostile: it reads inside its bounds or throws DerError. */
export class DerError extends Error {
  override readonly name = "DerError";
}

export interface DerItem {
  readonly tag: number;
  /** The content, a view. */
  readonly body: Uint8Array;
  /** Tag, length and content, a view: what a signature covers, or what two names are compared by. */
  readonly raw: Uint8Array;
}

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
} as const;

/** The items that fill `bytes` exactly, one after the other. Definite, shortest-form lengths and one-byte tags alone: that is DER, and all a certificate has. */
export function* derItems(bytes: Uint8Array): Generator<DerItem, undefined> {
  for (let at = 0; at < bytes.length;) {
    const start = at;
    const tag = bytes[at++]!;
    if ((tag & 0x1f) === 0x1f) throw new DerError("tag of several bytes");
    let length = bytes[at++] ?? fail("no length");
    if (length & 0x80) {
      const size = length & 0x7f;
      if (size === 0 || size > 4) throw new DerError("length");
      length = 0;
      for (let i = 0; i < size; i++) length = length * 256 + (bytes[at++] ?? fail("length"));
      if (length < 0x80 || length < 256 ** (size - 1)) throw new DerError("length is not the shortest");
    }
    if (at + length > bytes.length) throw new DerError("runs over its end");
    yield { tag, body: bytes.subarray(at, at + length), raw: bytes.subarray(start, at + length) };
    at += length;
  }
  return undefined;
}

/** The one item that fills `bytes`, which must have `tag`. */
export function derOne(bytes: Uint8Array, tag: number): DerItem {
  const [item, more] = derItems(bytes);
  if (item === undefined || more !== undefined || item.tag !== tag) throw new DerError(`expected one item of tag ${tag}`);
  return item;
}

/** Reads the items of a structure in order, by tag. */
export class DerFields {
  readonly #items: Iterator<DerItem, undefined>;
  #next: DerItem | undefined;

  constructor(body: Uint8Array) {
    this.#items = derItems(body);
    this.#next = this.#items.next().value;
  }

  /** The next item, if it has one of `tags`. */
  optional(...tags: readonly number[]): DerItem | undefined {
    const item = this.#next;
    if (item === undefined || !tags.includes(item.tag)) return undefined;
    this.#next = this.#items.next().value;
    return item;
  }

  required(...tags: readonly number[]): DerItem {
    return this.optional(...tags) ?? fail(`expected tag ${tags.join(" or ")}`);
  }

  end(): void {
    if (this.#next !== undefined) throw new DerError("unexpected item");
  }
}

/** Lower-case hex: `551d0f` for the OID 2.5.29.15. */
export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}

/** An INTEGER as upper-case hex without leading zeros, as Node writes serial numbers. */
export function serialOf(item: DerItem): string {
  return hex(item.body)
    .replace(/^0+(?=.)/, "")
    .toUpperCase();
}

/** UTCTime or GeneralizedTime in the one form that RFC 5280 allows, in Unix milliseconds. */
export function timeOf(item: DerItem): number {
  const text = Buffer.from(item.body).toString("latin1");
  const match = (item.tag === TAG.utcTime ? /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/ : /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/).exec(text);
  if (match === null) throw new DerError("time");
  const [year, month, day, hour, minute, second] = match.slice(1).map(Number) as [number, number, number, number, number, number];
  const full = item.tag === TAG.utcTime ? (year < 50 ? 2000 + year : 1900 + year) : year;
  const ms = Date.UTC(full, month - 1, day, hour, minute, second);
  const back = new Date(ms);
  if (back.getUTCMonth() !== month - 1 || back.getUTCDate() !== day || hour > 23 || minute > 59 || second > 59) throw new DerError("time");
  return ms;
}

function fail(what: string): never {
  throw new DerError(what);
}
