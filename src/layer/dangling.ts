import type { NoteList } from "./notes.ts";
import { isBelow, type PathKey, pathText } from "./path.ts";
import type { SortRecord } from "./sorter.ts";

/** A directory that the walk is in, and the record that came first of all at or below it. */
interface Level {
  readonly key: PathKey;
  first: SortRecord;
}

/**
 * Finds directories that a layer reaches through a symlink before it makes them (analysis.md B46): those where the first record of all came that
 * way. For a walk over a layer's records in key order; memory is bounded by the depth of one path.
 */
export class DanglingTargets {
  readonly #notes: NoteList;
  readonly #levels: Level[] = [];

  constructor(notes: NoteList) {
    this.#notes = notes;
  }

  see(record: SortRecord): void {
    // A whiteout makes the directory that it lies in, not the name that it takes away.
    const end = record.mark === "whiteout" ? record.key.lastIndexOf("\0") : record.key.length;
    const key = record.key.slice(0, Math.max(end, 0)) as PathKey;
    this.#leave(key);
    let at = this.#levels.at(-1)?.key.length ?? -1;
    while (at < key.length) {
      const next = key.indexOf("\0", at + 1);
      at = next < 0 ? key.length : next;
      if (at > 0) this.#levels.push({ key: key.slice(0, at) as PathKey, first: record });
    }
    const top = this.#levels.at(-1);
    if (top) top.first = earlier(top.first, record);
  }

  finish(): void {
    this.#leave("" as PathKey);
  }

  #leave(key: PathKey): void {
    for (let top = this.#levels.at(-1); top && top.key !== key && !isBelow(key, top.key); top = this.#levels.at(-1)) {
      this.#levels.pop();
      const { first } = top;
      if (first.targetLength === top.key.length) this.#notes.add("dangling-directory", pathText(top.key));
      const parent = this.#levels.at(-1);
      if (parent) parent.first = earlier(parent.first, first);
    }
  }
}

function earlier(a: SortRecord, b: SortRecord): SortRecord {
  return b.sequence < a.sequence ? b : a;
}
