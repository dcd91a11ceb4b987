import type { Deep } from "./pattern.ts";
import { TrieNode, type TrieStep, Wild } from "./trie-node.ts";

/** What hangs at one place of the trie. */
export interface Cell<V> {
  readonly owner: object;
  readonly entries: readonly V[];
  add(value: V): void;
}

/** Makes a cell of `owner` that holds `entries`, and keeps the array. */
export type NewCell<V, C extends Cell<V>> = (owner: object, entries: V[]) => C;

/**
 * Changes a trie over segments by copying the nodes on the way to the change and sharing all others: what was published before
 * stays as it was, and a change costs what it changes, not what there is. The editor marks what it made with its own token and
 * changes that in place. Not to be used after `root` is published.
 */
export class TrieEditor<V, C extends Cell<V>> {
  readonly #owner = {};
  readonly #newCell: NewCell<V, C>;
  readonly root: TrieNode<C>;

  constructor(from: TrieNode<C> | undefined, newCell: NewCell<V, C>) {
    this.root = new TrieNode(this.#owner, from);
    this.#newCell = newCell;
  }

  insert(steps: readonly TrieStep[], value: V, bits = 0): void {
    let node = this.root;
    node.reach |= bits;
    for (const step of steps) {
      if (isDeep(step)) {
        node.wild ??= new Wild();
        node.wild.below = this.#with(node.wild.below, value);
        return;
      }
      const child = childOf(node, step);
      const own = child?.owner === this.#owner ? child : new TrieNode(this.#owner, child);
      if (own !== child) setChild(node, step, own);
      own.reach |= bits;
      node = own;
    }
    node.here = this.#with(node.here, value);
  }

  /** Takes every value of `gone` off this place. */
  remove(steps: readonly TrieStep[], gone: ReadonlySet<V>): void {
    this.#removeFrom(this.root, steps, 0, gone);
  }

  #removeFrom(node: TrieNode<C>, steps: readonly TrieStep[], at: number, gone: ReadonlySet<V>): void {
    const step = steps[at];
    if (step === undefined) {
      node.here = this.#without(node.here, gone);
    } else if (isDeep(step)) {
      if (node.wild !== undefined) node.wild.below = this.#without(node.wild.below, gone);
    } else {
      const child = childOf(node, step);
      if (child === undefined) return;
      const own = child.owner === this.#owner ? child : new TrieNode(this.#owner, child);
      this.#removeFrom(own, steps, at + 1, gone);
      setChild(node, step, own.isEmpty ? undefined : own);
    }
    if (node.wild?.isEmpty) node.wild = undefined;
  }

  #with(cell: C | undefined, value: V): C {
    if (cell?.owner !== this.#owner) return this.#newCell(this.#owner, cell === undefined ? [value] : [...cell.entries, value]);
    cell.add(value);
    return cell;
  }

  #without(cell: C | undefined, gone: ReadonlySet<V>): C | undefined {
    if (cell === undefined || !cell.entries.some((entry) => gone.has(entry))) return cell;
    const left = cell.entries.filter((entry) => !gone.has(entry));
    return left.length === 0 ? undefined : this.#newCell(this.#owner, left);
  }
}

function isDeep(step: TrieStep): step is Deep {
  return typeof step !== "string" && step.kind === "deep";
}

function childOf<C>(node: TrieNode<C>, step: Exclude<TrieStep, Deep>): TrieNode<C> | undefined {
  if (typeof step === "string") return node.literal(step);
  switch (step.kind) {
    case "star":
      return node.wild?.star;
    case "glob":
      return node.wild?.globs.get(step.text)?.[1];
    case "bound":
      return node.wild?.bounds.get(step.position);
  }
}

function setChild<C>(node: TrieNode<C>, step: Exclude<TrieStep, Deep>, child: TrieNode<C> | undefined): void {
  if (typeof step === "string") return node.setLiteral(step, child);
  const wild = (node.wild ??= new Wild());
  switch (step.kind) {
    case "star":
      wild.star = child;
      return;
    case "glob":
      if (child === undefined) wild.globs.delete(step.text);
      else wild.globs.set(step.text, [step, child]);
      return;
    case "bound":
      if (child === undefined) wild.bounds.delete(step.position);
      else wild.bounds.set(step.position, child);
      return;
  }
}
