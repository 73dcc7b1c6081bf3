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

/** Pieces of a pax 0.0 or 0.1 map: `offset,length,offset,length…`. */
export function paxSparsePieces(map: string, count: string | undefined): SparsePiece[] {
  const numbers = map === "" ? [] : map.split(",").map(sparseNumber);
  if (numbers.length % 2 !== 0) throw new TarFault("a sparse map has an odd number of fields");
  if (count !== undefined && sparseNumber(count) * 2 !== numbers.length)
    throw new TarFault("a sparse map has not the announced length");
  return pairs(numbers);
}

/** The map at the head of a pax 1.0 sparse file's data: decimal lines, padded to whole blocks. Undefined while more is needed. */
export function paxSparseHead(data: Buffer): { readonly pieces: SparsePiece[]; readonly bytes: number } | undefined {
  const lines: number[] = [];
  let wanted = 1;
  let at = 0;
  while (lines.length < wanted) {
    const end = data.indexOf(0x0a, at);
    if (end < 0) {
      if (data.length - at > 20) throw new TarFault("a sparse map holds no number");
      return undefined;
    }
    lines.push(sparseNumber(data.toString("latin1", at, end)));
    if (lines.length === 1) wanted = 1 + 2 * (lines[0] as number);
    at = end + 1;
  }
  return { pieces: pairs(lines.slice(1)), bytes: Math.ceil(at / 512) * 512 };
}

/** Refuses what overlaps, runs backwards or past the end, as Go does. */
export function checkSparsePieces(pieces: readonly SparsePiece[], realSize: number, storedSize: number): void {
  let end = 0;
  let stored = 0;
  for (const { offset, length } of pieces) {
    if (offset < end || offset + length > realSize) throw new TarFault("a sparse map overlaps or runs past the end");
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
