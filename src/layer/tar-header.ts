/**
 * Tar headers as Go's `archive/tar` reads them, since every container runtime does.
 * @see POSIX pax, section "ustar Interchange Format"; analysis.md B2, B9
 */

export const blockBytes = 512;

/** A raw header block. Strings are latin-1 bytes. */
export interface TarHeader {
  readonly name: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  readonly typeflag: string;
  readonly linkname: string;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  readonly format: "ustar" | "gnu" | "star" | "v7";
}

/** Of any size, owner or time: four petabytes, and exact when a bit is added for the sign. */
const numberMax = 2 ** 52;

/** What is wrong with a header; the reader adds where. */
export class TarFault extends Error {}

export function isZeroBlock(block: Buffer): boolean {
  for (let i = 0; i < blockBytes; i++) if (block[i] !== 0) return false;
  return true;
}

/** `tar\0` */
const starTrailer = 0x74617200;

export function parseHeader(block: Buffer): TarHeader {
  verifyChecksum(block);
  const magic = block.toString("latin1", 257, 265);
  const format = magic.startsWith("ustar\0")
    ? block.readUInt32BE(508) === starTrailer
      ? "star"
      : "ustar"
    : magic === "ustar  \0"
      ? "gnu"
      : "v7";
  const isV7 = format === "v7";
  const prefix =
    format === "ustar"
      ? text(block, 345, 155)
      : format === "star"
        ? text(block, 345, 131)
        : format === "gnu"
          ? oldGoPrefix(block)
          : "";
  const name = text(block, 0, 100);
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    mode: numeric(block, 100, 8),
    uid: numeric(block, 108, 8),
    gid: numeric(block, 116, 8),
    size: numeric(block, 124, 12),
    mtime: numeric(block, 136, 12),
    typeflag: String.fromCharCode(block[156] as number),
    linkname: text(block, 157, 100),
    deviceMajor: isV7 ? 0 : numeric(block, 329, 8),
    deviceMinor: isV7 ? 0 : numeric(block, 337, 8),
    format,
  };
}

/** Old Go writers put a prefix into GNU headers; it shows where the access time is no number. */
function oldGoPrefix(block: Buffer): string {
  if (block[345] === 0) return "";
  try {
    numeric(block, 345, 12);
    if (block[357] !== 0) numeric(block, 357, 12);
    return "";
  } catch {
    const prefix = text(block, 345, 155);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the range is the definition of ASCII
    return /^[\x00-\x7f]*$/.test(prefix) ? prefix : "";
  }
}

function verifyChecksum(block: Buffer): void {
  const stored = numeric(block, 148, 8);
  let sum = 8 * 0x20;
  for (let i = 0; i < 148; i++) sum += block[i] as number;
  for (let i = 156; i < blockBytes; i++) sum += block[i] as number;
  if (stored === sum) return;
  // Old writers summed signed bytes: each of the upper half counts 256 less.
  for (let i = 0; i < 148; i++) if ((block[i] as number) > 127) sum -= 256;
  for (let i = 156; i < blockBytes; i++) if ((block[i] as number) > 127) sum -= 256;
  if (stored !== sum) throw new TarFault("a header's checksum is wrong");
}

/** A field's text up to the first NUL. */
export function text(block: Buffer, offset: number, length: number): string {
  const end = block.indexOf(0, offset);
  return block.toString("latin1", offset, end < 0 || end > offset + length ? offset + length : end);
}

/** Octal, or base-256 when the first bit is set. */
export function numeric(block: Buffer, offset: number, length: number): number {
  const first = block[offset] as number;
  if (first & 0x80) return base256(block, offset, length);
  const end = offset + length;
  let at = offset;
  while (at < end && isFill(block[at])) at++;
  let value = 0;
  for (; at < end; at++) {
    const digit = (block[at] as number) - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  // A NUL ends the number, whatever follows; spaces only where nothing but fill follows them.
  if (block[at] !== 0) while (at < end && isFill(block[at])) at++;
  if (at < end && block[at] !== 0) throw new TarFault("a number in a header is not octal");
  return value;
}

function isFill(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0;
}

function base256(block: Buffer, offset: number, length: number): number {
  const isNegative = ((block[offset] as number) & 0x40) !== 0;
  let value = 0n;
  for (let i = 0; i < length; i++) {
    const byte = block[offset + i] as number;
    value = (value << 8n) | BigInt(i === 0 ? byte & 0x7f : byte);
  }
  if (isNegative) value -= 1n << BigInt(length * 8 - 1);
  const number = Number(value);
  if (Math.abs(number) > numberMax) throw new TarFault("a number in a header is out of range");
  return number;
}

/**
 * Records of a pax extended header.
 * @see POSIX pax, section "pax Extended Header"; analysis.md B4
 */
export function parsePaxRecords(data: Buffer): Map<string, string> {
  const records = new Map<string, string>();
  const sparseMap: string[] = [];
  for (let at = 0; at < data.length; ) {
    const space = data.indexOf(0x20, at);
    const digits = space < 0 ? "" : data.toString("latin1", at, Math.min(space, at + 20));
    if (!/^[1-9]\d{0,15}$/.test(digits)) throw new TarFault("a pax record has no length");
    const end = at + Number(digits);
    if (end > data.length || end <= space + 1 || data[end - 1] !== 0x0a)
      throw new TarFault("a pax record has a wrong length");
    const record = data.toString("latin1", space + 1, end - 1);
    const equals = record.indexOf("=");
    if (equals <= 0) throw new TarFault("a pax record has no key");
    const key = record.slice(0, equals);
    const value = record.slice(equals + 1);
    if (key.includes("\0") || (namesWithoutNul.has(key) && value.includes("\0")))
      throw new TarFault("a pax record holds a NUL");
    if (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes") {
      if ((sparseMap.length % 2 === 0) !== (key === "GNU.sparse.offset"))
        throw new TarFault("a sparse map is out of order");
      if (value.includes(",")) throw new TarFault("a sparse map holds no number");
      sparseMap.push(value);
    } else records.set(key, value);
    at = end;
  }
  if (sparseMap.length > 0) records.set("GNU.sparse.map", sparseMap.join(","));
  return records;
}

const namesWithoutNul = new Set(["path", "linkpath", "uname", "gname", "GNU.sparse.name"]);

/** A pax decimal number, fraction dropped towards −∞. */
export function parsePaxNumber(value: string): number {
  if (!/^-?\d{1,18}(?:\.\d*)?$/.test(value)) throw new TarFault("a pax record holds no number");
  const number = Math.floor(Number(value));
  if (Math.abs(number) > numberMax) throw new TarFault("a pax number is out of range");
  return number;
}

const noXattrs: ReadonlyMap<string, string> = new Map();

/** Extended attributes among pax records, by name. */
export function paxXattrs(pax: ReadonlyMap<string, string> | undefined): ReadonlyMap<string, string> {
  if (!pax) return noXattrs;
  let xattrs: Map<string, string> | undefined;
  for (const [key, value] of pax) {
    const name = key.startsWith("SCHILY.xattr.")
      ? key.slice("SCHILY.xattr.".length)
      : key.startsWith("LIBARCHIVE.xattr.")
        ? decodeUrl(key.slice("LIBARCHIVE.xattr.".length))
        : undefined;
    if (name === undefined) continue;
    xattrs ??= new Map();
    // SCHILY holds the bytes themselves; LIBARCHIVE's base64 counts only where SCHILY is silent.
    if (key.startsWith("SCHILY")) xattrs.set(name, value);
    else if (!xattrs.has(name)) xattrs.set(name, Buffer.from(value, "base64").toString("latin1"));
  }
  return xattrs ?? noXattrs;
}

function decodeUrl(name: string): string {
  return name.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}
