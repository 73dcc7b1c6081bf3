import { isBelow, type PathKey } from "./path.ts";
import type { SortRecord } from "./sorter.ts";

/** A name's nodes in one layer, in stream order. */
class Versions {
  readonly key: PathKey;
  readonly #nodes: SortRecord[] = [];
  /** Those that are no directories. */
  readonly #others: SortRecord[] = [];

  constructor(key: PathKey) {
    this.key = key;
  }

  add(record: SortRecord): void {
    this.#nodes.push(record);
    if (record.node?.type !== "dir") this.#others.push(record);
  }

  /** The last that came before `sequence`. */
  inForce(sequence: number): SortRecord | undefined {
    return lastBefore(this.#nodes, sequence);
  }

  /** Whether one that is no directory came between the two. */
  isReplacedBetween(after: number, before: number): boolean {
    return (lastBefore(this.#others, before)?.sequence ?? -1) > after;
  }
}

/** Names may be repeated a hundred thousand times, with as many below each: no search may be linear. */
function lastBefore(records: readonly SortRecord[], sequence: number): SortRecord | undefined {
  let low = 0;
  let high = records.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((records[middle] as SortRecord).sequence < sequence) low = middle + 1;
    else high = middle;
  }
  return records[low - 1];
}

/**
 * What the names above a record were at the moment it came: for a walk over a layer's records in order of key, which meets every version of a
 * directory before anything in it.
 */
export class Ancestry {
  readonly #stack: Versions[] = [];

  /** Goes on to `key`. */
  enter(key: PathKey): void {
    for (let top = this.#stack.at(-1); top !== undefined; top = this.#stack.at(-1)) {
      if (top.key === key || isBelow(key, top.key)) return;
      this.#stack.pop();
    }
  }

  /** Adds a node to the names that the walk is in. */
  add(record: SortRecord): void {
    let top = this.#stack.at(-1);
    if (top?.key !== record.key) {
      top = new Versions(record.key);
      this.#stack.push(top);
    }
    top.add(record);
  }

  /** The topmost name above `record` that was no directory at that moment. An opaque mark lies in the directory that it is about. */
  above(record: SortRecord): SortRecord | undefined {
    for (const [depth, versions] of this.#stack.entries()) {
      if (versions.key === record.key && record.mark !== "opaque") return undefined;
      const node = versions.inForce(record.sequence);
      if (node && node.node?.type !== "dir" && !this.#isReplaced(node, record.sequence, depth)) return node;
    }
    return undefined;
  }

  /** What bears the key of `record`, which the walk is at, at that moment. */
  present({ key, sequence }: SortRecord): SortRecord | undefined {
    const top = this.#stack.at(-1);
    const node = top?.key === key ? top.inForce(sequence) : undefined;
    return node && !this.#isReplaced(node, sequence, this.#stack.length - 1) ? node : undefined;
  }

  /** Whether something that is no directory took the place of a name above `record` later. */
  isReplacedLater(record: SortRecord): boolean {
    const isAtTop = this.#stack.at(-1)?.key === record.key;
    return this.#isReplaced(record, Number.POSITIVE_INFINITY, this.#stack.length - (isAtTop ? 1 : 0));
  }

  #isReplaced({ sequence }: SortRecord, before: number, depth: number): boolean {
    for (let at = 0; at < depth; at++) {
      if ((this.#stack[at] as Versions).isReplacedBetween(sequence, before)) return true;
    }
    return false;
  }
}
