import type { Principal } from "../model/principal.ts";
import type { Grant, Variant } from "./compile.ts";
import { matchesGlob } from "./pattern.ts";
import type { RuleSet } from "./rule-set.ts";
import { type Cell, TrieEditor } from "./trie.ts";
import type { TrieNode } from "./trie-node.ts";

/** The variants granted at one place of the principal trie. */
export class GrantCell implements Cell<Variant> {
  readonly owner: object;
  readonly entries: Variant[];
  /** Names the content: a cell never changes once published, so equal ids are equal grants. */
  readonly id: number;
  /** The rules of callers whom no other cell matches, once one has been met: kept here they outlive changes elsewhere. */
  alone: RuleSet | undefined;

  /** The cell keeps the array. */
  constructor(owner: object, entries: Variant[]) {
    this.owner = owner;
    this.entries = entries;
    this.id = nextId++;
  }

  add(variant: Variant): void {
    this.entries.push(variant);
  }
}

let nextId = 1;

export type GrantNode = TrieNode<GrantCell>;

/** Changes the index of who is granted what. */
export class GrantEditor {
  readonly #trie: TrieEditor<Variant, GrantCell>;

  constructor(root: GrantNode | undefined) {
    this.#trie = new TrieEditor<Variant, GrantCell>(root, (owner, entries) => new GrantCell(owner, entries));
  }

  get root(): GrantNode {
    return this.#trie.root;
  }

  insert(grant: Grant): void {
    this.#trie.insert(grant.principal, grant.variant);
  }

  remove(grant: Grant): void {
    this.#trie.remove(grant.principal, new Set([grant.variant]));
  }
}

/** The cells whose patterns match, in a fixed order. */
export function grantCells(root: GrantNode, principal: Principal): GrantCell[] {
  const cells: GrantCell[] = [];
  collect(root, [principal.trustDomain, ...principal.segments], 0, cells);
  return cells;
}

function collect(node: GrantNode, segments: readonly string[], at: number, cells: GrantCell[]): void {
  const segment = segments[at];
  if (segment === undefined) {
    if (node.here !== undefined) cells.push(node.here);
    return;
  }
  const literal = node.literal(segment);
  if (literal !== undefined) collect(literal, segments, at + 1, cells);
  const { wild } = node;
  if (wild === undefined) return;
  if (wild.below !== undefined) cells.push(wild.below);
  if (wild.star !== undefined) collect(wild.star, segments, at + 1, cells);
  for (const [glob, child] of wild.globs.values()) if (matchesGlob(glob, segment)) collect(child, segments, at + 1, cells);
}
