import { Literals } from "./literals.ts";
import type { Deep, Glob, Star } from "./pattern.ts";

export type TrieStep = string | Star | Deep | Glob | Bound;

/** The segment equals the caller's own SPIFFE segment at `position`: how a capture is matched, so one trie serves every caller. */
export interface Bound {
  readonly kind: "bound";
  readonly position: number;
}

/**
 * A node of the trie, to be read by anyone and changed by its owner alone (trie.ts). Most nodes have one literal child and no
 * wildcard, so that child is held without a map and the wildcards apart: at 100,000 rules memory is time, for the collector and
 * for the processor's caches.
 */
export class TrieNode<C> {
  readonly owner: object;
  /** The one literal child, unless `many` holds them. */
  key: string | undefined;
  only: TrieNode<C> | undefined;
  many: Literals<TrieNode<C>> | undefined;
  wild: Wild<C> | undefined;
  /** For a path that ends here. */
  here: C | undefined;
  /** Bits of what was ever put here or deeper. Removal leaves them, so a missing bit proves absence and a set one proves nothing. */
  reach: number;

  constructor(owner: object, from?: TrieNode<C>) {
    this.owner = owner;
    this.key = from?.key;
    this.only = from?.only;
    this.many = from?.many && new Literals(owner, from.many);
    this.wild = from?.wild && new Wild(from.wild);
    this.here = from?.here;
    this.reach = from?.reach ?? 0;
  }

  literal(segment: string): TrieNode<C> | undefined {
    if (this.many !== undefined) return this.many.get(segment);
    return this.key === segment ? this.only : undefined;
  }

  setLiteral(segment: string, child: TrieNode<C> | undefined): void {
    if (this.many === undefined && (this.key === undefined || this.key === segment)) {
      this.key = child && segment;
      this.only = child;
      return;
    }
    if (this.many === undefined) {
      this.many = new Literals(this.owner);
      this.many.set(this.key!, this.only!);
      this.key = undefined;
      this.only = undefined;
    }
    if (child === undefined) this.many.delete(segment);
    else this.many.set(segment, child);
  }

  *literals(): Generator<readonly [string, TrieNode<C>]> {
    if (this.many !== undefined) yield* this.many.entries();
    else if (this.key !== undefined) yield [this.key, this.only!];
  }

  get isEmpty(): boolean {
    return this.here === undefined && this.key === undefined && !this.many?.size && (this.wild === undefined || this.wild.isEmpty);
  }
}

/** What a node has besides literal children. */
export class Wild<C> {
  star: TrieNode<C> | undefined;
  /** By the glob's text. */
  readonly globs: Map<string, readonly [glob: Glob, child: TrieNode<C>]>;
  /** By the position of the caller's segment. */
  readonly bounds: Map<number, TrieNode<C>>;
  /** For every path that goes on from here (`**`). */
  below: C | undefined;

  constructor(from?: Wild<C>) {
    this.star = from?.star;
    this.globs = new Map(from?.globs);
    this.bounds = new Map(from?.bounds);
    this.below = from?.below;
  }

  get isEmpty(): boolean {
    return this.star === undefined && this.below === undefined && this.globs.size === 0 && this.bounds.size === 0;
  }

  *children(): Generator<TrieNode<C>> {
    if (this.star !== undefined) yield this.star;
    yield* this.bounds.values();
    for (const [, child] of this.globs.values()) yield child;
  }
}
