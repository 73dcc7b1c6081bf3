import type { ProblemList } from "../record.ts";
import type { SqlitePages } from "./sqlite-pages.ts";

/**
 * A value of a record: NULL, a number (64-bit integers beyond 2⁵³ lose precision), text, or bytes that share memory with the database.
 *
 * @see https://www.sqlite.org/fileformat2.html sections 1.5, 1.6, 2.1
 */
export type SqliteValue = null | number | string | Buffer;

const LEAF = 13;
const INTERIOR = 5;
const COLUMNS_MAX = 64;

/** Root page of the ordinary table of this name, or why there is none: a view or virtual table of that name is no place for packages. */
export function findTable(pages: SqlitePages, name: string, problems: ProblemList): number | string {
  for (const row of readRows(pages, 1, problems)) {
    const [type, rowName, , rootPage] = row;
    if (typeof rowName !== "string" || rowName.toLowerCase() !== name.toLowerCase()) continue;
    if (type !== "table")
      return `${name} is a ${typeof type === "string" ? type.slice(0, 20) : "thing without type"}, not a table`;
    if (typeof rootPage !== "number" || rootPage < 2) return `${name} is a virtual table`;
    return rootPage;
  }
  return `there is no table ${name}`;
}

/**
 * Records of the table whose b-tree begins at `root`, in order of their row ids. Damage costs the page or the record. Each page is read at most
 * once and no page gives more bytes than it has, so that the sum of all records is never more than the database.
 */
export function* readRows(pages: SqlitePages, root: number, problems: ProblemList): Generator<SqliteValue[]> {
  const seen = new Set<number>();
  const stack: { readonly number: number; readonly page: Buffer }[] = [];
  // A page is claimed when it is found, so that the stack never grows beyond the number of pages.
  const push = (number: number) => {
    const page = claimPage(pages, number, seen);
    if (page === undefined) problems.add(`page ${number} is missing or used twice`);
    else stack.push({ number, page });
  };
  push(root);
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    const { number, page } = next;
    const start = number === 1 ? 100 : 0;
    const type = page[start];
    if (type !== LEAF && type !== INTERIOR) {
      problems.add(`page ${number} is not a page of a table`);
      continue;
    }
    const cellsStart = start + (type === LEAF ? 8 : 12);
    const cells = page.readUInt16BE(start + 3);
    if (cellsStart + cells * 2 > page.length) {
      problems.add(`page ${number} has more cells than room`);
      continue;
    }
    const offsets = Array.from({ length: cells }, (_, cell) => page.readUInt16BE(cellsStart + cell * 2));
    if (type === INTERIOR) {
      push(page.readUInt32BE(start + 8));
      for (const at of offsets.reverse()) if (at + 4 <= page.length) push(page.readUInt32BE(at));
    } else yield* readLeaf(pages, number, page, offsets, seen, problems);
  }
}

function claimPage(pages: SqlitePages, number: number, seen: Set<number>): Buffer | undefined {
  if (seen.has(number)) return undefined;
  seen.add(number);
  return pages.page(number)?.subarray(0, pages.usableBytes);
}

function* readLeaf(
  pages: SqlitePages,
  number: number,
  page: Buffer,
  offsets: readonly number[],
  seen: Set<number>,
  problems: ProblemList,
): Generator<SqliteValue[]> {
  // Cells don't overlap; on a hostile page thousands of pointers may lead to the same one.
  let left = pages.usableBytes;
  for (const offset of offsets) {
    const size = readVarint(page, offset);
    const rowId = size && readVarint(page, size.end);
    if (rowId === undefined) {
      problems.add(`page ${number} has a cell beyond its end`);
      continue;
    }
    const local = localBytes(size?.value ?? 0, pages.usableBytes);
    left -= local + 2;
    const payload = left < 0 ? undefined : readPayload(pages, page, rowId.end, size?.value ?? 0, local, seen);
    const record = payload && parseRecord(payload);
    if (record !== undefined) yield record;
    else problems.add(`a record on page ${number} is damaged`);
  }
}

/** How many bytes of a table leaf's payload are on its own page. @see section 1.6 "Cell Format", with U, X, M, K, P */
function localBytes(payload: number, usable: number): number {
  const max = usable - 35;
  if (payload <= max) return payload;
  const min = Math.floor(((usable - 12) * 32) / 255) - 23;
  const fitting = min + ((payload - min) % (usable - 4));
  return fitting <= max ? fitting : min;
}

/** The payload, with its overflow pages; `undefined` if some of it is missing. Never allocates by a declared size alone. */
function readPayload(
  pages: SqlitePages,
  page: Buffer,
  start: number,
  size: number,
  local: number,
  seen: Set<number>,
): Buffer | undefined {
  if (start + local > page.length) return undefined;
  const first = page.subarray(start, start + local);
  if (local === size) return first;
  if (start + local + 4 > page.length || size > pages.pageCount * pages.usableBytes) return undefined;
  const parts = [first];
  let left = size - local;
  for (let number = page.readUInt32BE(start + local); left > 0; ) {
    const overflow = claimPage(pages, number, seen);
    if (overflow === undefined) return undefined;
    parts.push(overflow.subarray(4, 4 + Math.min(left, overflow.length - 4)));
    left -= overflow.length - 4;
    number = overflow.readUInt32BE(0);
  }
  return Buffer.concat(parts, size);
}

/** @see section 2.1 "Record Format" */
function parseRecord(payload: Buffer): SqliteValue[] | undefined {
  const header = readVarint(payload, 0);
  if (header === undefined || header.value > payload.length) return undefined;
  const values: SqliteValue[] = [];
  let body = header.value;
  for (let at = header.end; at < header.value; ) {
    const type = readVarint(payload, at);
    if (type === undefined || values.length === COLUMNS_MAX) return undefined;
    at = type.end;
    const length = contentBytes(type.value);
    if (length === undefined || body + length > payload.length) return undefined;
    values.push(readValue(payload, body, type.value, length));
    body += length;
  }
  return values;
}

const INTEGER_BYTES = [0, 1, 2, 3, 4, 6, 8, 8, 0, 0] as const;

function contentBytes(type: number): number | undefined {
  return type < 12 ? INTEGER_BYTES[type] : Math.floor((type - 12) / 2);
}

function readValue(payload: Buffer, at: number, type: number, length: number): SqliteValue {
  if (type >= 12) return type % 2 === 0 ? payload.subarray(at, at + length) : payload.toString("utf8", at, at + length);
  if (type === 0) return null;
  if (type >= 8) return type - 8;
  if (type === 7) return payload.readDoubleBE(at);
  return length <= 6 ? payload.readIntBE(at, length) : Number(payload.readBigInt64BE(at));
}

/**
 * A number of one to nine bytes, `undefined` if it runs past the end. Row ids and sizes beyond 2⁵³ lose precision, and none of them is in any real
 * database. @see section 1.6
 */
function readVarint(bytes: Buffer, at: number): { readonly value: number; readonly end: number } | undefined {
  let value = 0;
  for (let index = 0; index < 9; index += 1) {
    const byte = bytes[at + index];
    if (byte === undefined) return undefined;
    if (index === 8) return { value: value * 256 + byte, end: at + 9 };
    value = value * 128 + (byte & 0x7f);
    if (byte < 0x80) return { value, end: at + index + 1 };
  }
  return undefined;
}
