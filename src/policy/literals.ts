/**
 * The literal children of a trie node that has more than one. A node with very many keeps them in buckets, so that a change copies
 * one bucket and not all of them (copying a map of 100,000 takes some 40 ms, twice what a policy change may hold the event loop).
 */
export class Literals<T> {
  readonly owner: object;
  #size = 0;
  #map: Map<string, T> = new Map();
  #buckets: (Bucket<T> | undefined)[] | undefined;

  /** A copy that `owner` may change; it shares the buckets until it changes them. */
  constructor(owner: object, from?: Literals<T>) {
    this.owner = owner;
    if (from === undefined) return;
    this.#size = from.#size;
    if (from.#buckets === undefined) this.#map = new Map(from.#map);
    else this.#buckets = [...from.#buckets];
  }

  get size(): number {
    return this.#size;
  }

  get(key: string): T | undefined {
    return this.#buckets === undefined ? this.#map.get(key) : this.#buckets[bucketOf(key)]?.map.get(key);
  }

  set(key: string, value: T): void {
    const map = this.#buckets === undefined ? this.#map : this.#ownBucket(this.#buckets, key);
    if (!map.has(key)) this.#size++;
    map.set(key, value);
    if (this.#buckets === undefined && this.#size > MAX_MAP) this.#split();
  }

  delete(key: string): void {
    const map = this.#buckets === undefined ? this.#map : this.#ownBucket(this.#buckets, key);
    if (map.delete(key)) this.#size--;
  }

  *entries(): Generator<readonly [string, T]> {
    if (this.#buckets === undefined) yield* this.#map;
    else for (const bucket of this.#buckets) yield* bucket?.map ?? [];
  }

  #split(): void {
    const buckets = Array.from<Bucket<T> | undefined>({ length: BUCKETS });
    for (const [key, value] of this.#map) this.#ownBucket(buckets, key).set(key, value);
    this.#buckets = buckets;
    this.#map = new Map();
  }

  #ownBucket(buckets: (Bucket<T> | undefined)[], key: string): Map<string, T> {
    const at = bucketOf(key);
    const bucket = buckets[at];
    if (bucket?.owner === this.owner) return bucket.map;
    const own = { owner: this.owner, map: new Map(bucket?.map) };
    buckets[at] = own;
    return own.map;
  }
}

interface Bucket<T> {
  readonly owner: object;
  readonly map: Map<string, T>;
}

const MAX_MAP = 1024;
const BUCKETS = 512;

/** By some of the characters, the last ones above all, in which names that were made in series differ. A bad spread costs speed of change, nothing else. */
function bucketOf(key: string): number {
  const end = key.length;
  const mixed =
    Math.imul(key.charCodeAt(end - 1), 31) +
    Math.imul(key.charCodeAt(end - 2) | 0, 521) +
    Math.imul(key.charCodeAt(end - 3) | 0, 8191) +
    Math.imul(key.charCodeAt(end >> 1), 131);
  return (mixed ^ (mixed >>> 9)) & (BUCKETS - 1);
}
