import { numeric, TarFault } from "./tar-header.ts";

/** A piece of a sparse file that is stored: where it belongs, and how long it is. */
export interface SparsePiece {
  readonly offset: number;
  readonly length: number;
}

const entryBytes = 24;

/**
 * Pieces of an old GNU sparse header (4 in the header, 21 in each extension block), up to the first empty one.
 * @see GNU tar manual, "Storing Sparse Files"; analysis.md B5
 */
export function gnuSparsePieces(block: Buffer, start: number, count: number): SparsePiece[] {
  const pieces: SparsePiece[] = [];
  for (let i = 0; i < count; i++) {
    const at = start + i * entryBytes;
    if (block[at] === 0) break;
    pieces.push({ offset: numeric(block, at, 12), length: numeric(block, at + 12, 12) });
  }
  return pieces;
}

/** Pieces of a pax 0.0 or 0.1 map: `offset,length,offset,length…`, and how many they are. */
export function paxSparsePieces(map: string, count: string | undefined): SparsePiece[] {
  const numbers = map.split(",").map(sparseNumber);
  if (sparseNumber(count ?? "") * 2 !== numbers.length) throw new TarFault("a sparse map has not the announced length");
  return pairs(numbers);
}

/** The map at the head of a pax 1.0 sparse file's data: decimal lines (a count, then offsets and lengths), padded to whole blocks. */
export class PaxSparseHead {
  #line = "";
  readonly #numbers: number[] = [];
  #wanted = 1;
  #bytes = 0;

  /** Bytes taken so far. */
  get bytes(): number {
    return this.#bytes;
  }

  get isComplete(): boolean {
    return this.#numbers.length === this.#wanted && this.#bytes % 512 === 0;
  }

  get pieces(): SparsePiece[] {
    return pairs(this.#numbers.slice(1));
  }

  /** Takes what belongs to the map from the front of `data`; returns how much that was. */
  take(data: Buffer): number {
    let at = 0;
    while (at < data.length && !this.isComplete) {
      const byte = data[at++] as number;
      this.#bytes++;
      if (this.#numbers.length === this.#wanted) continue;
      if (byte !== 0x0a) {
        this.#line += String.fromCharCode(byte);
        if (this.#line.length > 20) throw new TarFault("a sparse map holds no number");
        continue;
      }
      this.#numbers.push(sparseNumber(this.#line));
      this.#line = "";
      if (this.#numbers.length === 1) this.#wanted = 1 + 2 * (this.#numbers[0] as number);
    }
    return at;
  }
}

/** Refuses what overlaps, runs backwards or past the end, as Go does. */
export function checkSparsePieces(pieces: readonly SparsePiece[], realSize: number, storedSize: number): void {
  if (realSize < 0) throw new TarFault("a size is negative");
  let end = 0;
  let stored = 0;
  for (const { offset, length } of pieces) {
    if (offset < end || length < 0 || offset + length > realSize)
      throw new TarFault("a sparse map overlaps or runs past the end");
    end = offset + length;
    stored += length;
  }
  if (stored !== storedSize) throw new TarFault("a sparse map does not fit the stored bytes");
}

function pairs(numbers: readonly number[]): SparsePiece[] {
  const pieces: SparsePiece[] = [];
  for (let i = 0; i + 1 < numbers.length; i += 2) {
    pieces.push({ offset: numbers[i] as number, length: numbers[i + 1] as number });
  }
  return pieces;
}

function sparseNumber(value: string): number {
  const number = /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw new TarFault("a sparse map holds no number");
  return number;
}
