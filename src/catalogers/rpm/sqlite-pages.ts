/**
 * Pages of an SQLite database as its last committed transaction left them: the file with the frames of its write-ahead log over it.
 *
 * Read by ourselves and not by `node:sqlite`: a cataloger has bytes, no files, and is a pure function; a database in WAL mode can't be opened from
 * memory together with its log; and a hostile schema never reaches an SQL engine here.
 *
 * @see https://www.sqlite.org/fileformat2.html sections 1.2, 1.3, 4
 */
export interface SqlitePages {
  readonly pageCount: number;
  /** Bytes of a page that hold content: without the reserved end. */
  readonly usableBytes: number;
  /** Number of the first page is 1; `undefined` if there is no such page. */
  page(number: number): Buffer | undefined;
}

const MAGIC = "SQLite format 3\0";
const WAL_HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
const WAL_VERSION = 3_007_000;

/** Refuses (returns text) what is no SQLite database in UTF-8. */
export function openSqlite(file: Buffer, wal: Buffer | undefined): SqlitePages | string {
  if (file.length < 100 || file.toString("latin1", 0, 16) !== MAGIC) return "not an SQLite database";
  const pageBytes = pageSize(file.readUInt16BE(16));
  if (pageBytes === undefined) return "page size is not a power of two from 512 to 65536";
  const frames = wal === undefined ? undefined : committedFrames(wal, pageBytes);
  const pageCount = frames?.pageCount ?? Math.floor(file.length / pageBytes);
  const page = (number: number): Buffer | undefined => {
    if (number < 1 || number > pageCount) return undefined;
    const frame = frames?.offsets.get(number);
    if (frame !== undefined) return wal?.subarray(frame, frame + pageBytes);
    const start = (number - 1) * pageBytes;
    return start + pageBytes <= file.length ? file.subarray(start, start + pageBytes) : undefined;
  };
  const first = page(1);
  if (first === undefined) return "shorter than one page";
  if (first[19] !== 1 && first[19] !== 2) return "written by a version of SQLite that readers of today can't read";
  const encoding = first.readUInt32BE(56);
  // 0 stands in a database that has no table yet.
  if (encoding > 1) return "text is not in UTF-8";
  const usableBytes = pageBytes - (first[20] ?? 0);
  if (usableBytes < 480) return "less than 480 usable bytes in a page";
  return { pageCount, usableBytes, page };
}

function pageSize(stored: number): number | undefined {
  if (stored === 1) return 65_536;
  return stored >= 512 && (stored & (stored - 1)) === 0 ? stored : undefined;
}

/** Where each page's newest committed version begins in the log; `undefined` if the log holds no committed transaction. */
function committedFrames(
  wal: Buffer,
  pageBytes: number,
): { readonly offsets: ReadonlyMap<number, number>; readonly pageCount: number } | undefined {
  if (wal.length < WAL_HEADER_BYTES) return undefined;
  const magic = wal.readUInt32BE(0);
  if ((magic & 0xfffffffe) >>> 0 !== 0x377f0682 || wal.readUInt32BE(4) !== WAL_VERSION) return undefined;
  if (wal.readUInt32BE(8) !== pageBytes) return undefined;
  const isBigEndian = (magic & 1) === 1;
  const checksum = new WalChecksum(isBigEndian);
  checksum.add(wal.subarray(0, 24));
  if (!checksum.equals(wal, 24)) return undefined;

  const offsets = new Map<number, number>();
  let pending: [page: number, offset: number][] = [];
  let pageCount: number | undefined;
  for (
    let at = WAL_HEADER_BYTES;
    at + FRAME_HEADER_BYTES + pageBytes <= wal.length;
    at += FRAME_HEADER_BYTES + pageBytes
  ) {
    const content = at + FRAME_HEADER_BYTES;
    // Frames of an older run of the log have other salts; the first of them ends it, as does a torn frame.
    if (wal.compare(wal, 16, 24, at + 8, at + 16) !== 0) break;
    checksum.add(wal.subarray(at, at + 8));
    checksum.add(wal.subarray(content, content + pageBytes));
    if (!checksum.equals(wal, at + 16)) break;
    pending.push([wal.readUInt32BE(at), content]);
    const pagesAfterCommit = wal.readUInt32BE(at + 4);
    if (pagesAfterCommit === 0) continue;
    for (const [page, offset] of pending) offsets.set(page, offset);
    pending = [];
    pageCount = pagesAfterCommit;
  }
  return pageCount === undefined ? undefined : { offsets, pageCount };
}

/** @see section 4.2 "Checksum Algorithm" */
class WalChecksum {
  readonly #isBigEndian: boolean;
  #first = 0;
  #second = 0;

  constructor(isBigEndian: boolean) {
    this.#isBigEndian = isBigEndian;
  }

  /** `bytes` are a multiple of eight. */
  add(bytes: Buffer): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const isLittleEndian = !this.#isBigEndian;
    let first = this.#first;
    let second = this.#second;
    for (let at = 0; at + 8 <= bytes.length; at += 8) {
      first = (first + view.getUint32(at, isLittleEndian) + second) >>> 0;
      second = (second + view.getUint32(at + 4, isLittleEndian) + first) >>> 0;
    }
    this.#first = first;
    this.#second = second;
  }

  equals(bytes: Buffer, at: number): boolean {
    return bytes.readUInt32BE(at) === this.#first && bytes.readUInt32BE(at + 4) === this.#second;
  }
}
