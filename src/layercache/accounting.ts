/** File systems hand out room in whole blocks; `st_blocks` counts these, whatever the block. */
const statusBlockBytes = 512;
const pageBytes = 4096;
/** Of the index: rows, the index over them, and half of each page empty. */
const entriesPerPage = 8;
/** Of `sha256/`: a name of 64 letters takes 72 bytes, and a directory never shrinks. */
const namesPerBlock = 24;
/** A cache of small layers holds fewer than would fit: the index is bounded too. */
const bytesPerEntryMin = 128 * 1024;
const entriesLowest = 32;
const entriesHighest = 200_000;
/** Pages that one transaction changes at most: see `rowsPerStep`. */
const journalPagesMax = 128;

/** Rows that one transaction of the index changes at most, so that its journal stays small. */
export const rowsPerStep = 16;

/** What a cache of a certain size needs for itself. */
export interface Overhead {
  readonly entriesMax: number;
  /** Of the index. */
  readonly pagesMax: number;
  /** What the index, its journal and the directories take up at most. */
  readonly bytes: number;
}

/** A limit that is none: of one who looks after a cache and does not say how large it may become. */
const unlimitedFrom = 1e15;

export function overheadOf(bytesMax: number): Overhead {
  const entriesMax = Math.min(Math.max(Math.floor(bytesMax / bytesPerEntryMin), entriesLowest), entriesHighest);
  const pagesMax = 12 + Math.ceil(entriesMax / entriesPerPage);
  const directoryBlocks = 6 + Math.ceil(entriesMax / namesPerBlock);
  const bytes = (pagesMax + directoryBlocks) * pageBytes + journalBytesMax(pagesMax);
  // Then only what is there counts.
  return { entriesMax, pagesMax, bytes: bytesMax < unlimitedFrom ? bytes : 0 };
}

/** The rollback journal holds each changed page as it was, with eight bytes more, after a header of a sector. */
export function journalBytesMax(pages: number): number {
  return roundUp(Math.min(pages, journalPagesMax) * (pageBytes + 8) + pageBytes, pageBytes);
}

/**
 * What a file of `size` bytes takes up at most, however the disk is fragmented: its blocks, and those that say where they lie. (ext4 keeps four
 * extents in the inode; then a block names 340.)
 */
export function costOf(size: number, blockBytes: number): number {
  const blocks = Math.ceil(size / blockBytes);
  const extentBlocks = blocks <= 4 ? 0 : Math.ceil(blocks / 340) + (blocks > 4 * 340 ? 1 : 0);
  return (blocks + extentBlocks) * blockBytes;
}

/** What a file takes up. */
export function bytesOnDisk(status: { readonly blocks: bigint }): number {
  return Number(status.blocks) * statusBlockBytes;
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
