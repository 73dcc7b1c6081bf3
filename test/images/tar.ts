/**
 * A tiny tar writer for tests: deterministic, and able to write what no sane program would.
 * It shares nothing with the product's tar reader, so that a test of one against the other means something.
 */

export type TarEntryType = "file" | "dir" | "symlink" | "hardlink" | "char" | "block" | "fifo" | "contiguous";

/** How values that don't fit a ustar header are written. `pax` is the default; `gnu` uses `L`, `K` and base-256 numbers. */
export type TarFormat = "pax" | "gnu" | "v7";

/** A sparse file in one of the four forms found in the wild. `content` of the entry is ignored. */
export interface SparseContent {
  readonly form: "gnu" | "pax-0.0" | "pax-0.1" | "pax-1.0";
  readonly realSize: number;
  readonly chunks: readonly { readonly offset: number; readonly data: Buffer | string }[];
}

export interface TarEntry {
  /** A directory's path gets a slash at its end, unless it has one; a Buffer is written as it is. */
  readonly path: string | Buffer;
  /** Default `file`. */
  readonly type?: TarEntryType;
  /** The raw typeflag byte, over what `type` says: `"\0"`, `"X"`, `"g"`… */
  readonly typeflag?: string;
  readonly content?: string | Buffer;
  /** Default 0644, directories 0755. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly uname?: string;
  readonly gname?: string;
  /** Seconds since 1970. Default 0. */
  readonly mtime?: number;
  readonly linkTarget?: string | Buffer;
  readonly device?: readonly [major: number, minor: number];
  /** Records of a pax header (`x`) before the entry, written as given, in order. */
  readonly pax?: Readonly<Record<string, string | Buffer>> | readonly (readonly [string, string | Buffer])[];
  readonly format?: TarFormat;
  readonly sparse?: SparseContent;
  /** A size in the header other than the content's: a lie. */
  readonly declaredSize?: number | bigint;
  /** Changes the finished header block before its checksum is computed. */
  readonly patch?: (header: Buffer) => void;
  /** A checksum other than the right one. */
  readonly checksum?: number;
  /** Bytes written as they are, instead of any entry: anything at all. */
  readonly raw?: Buffer;
}

export interface TarOptions {
  /** What follows the last entry; default two blocks of zeros. */
  readonly end?: "two-blocks" | "one-block" | "none" | Buffer;
}

const BLOCK = 512;
const typeflags: Readonly<Record<TarEntryType, string>> = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  char: "3",
  block: "4",
  dir: "5",
  fifo: "6",
  contiguous: "7",
};

/** The whole tar stream in memory. */
export function tarStream(entries: Iterable<TarEntry>, options: TarOptions = {}): Buffer {
  return Buffer.concat([...tarChunks(entries, options)]);
}

/** The tar stream piece by piece, for streams that are too large for memory. */
export function* tarChunks(entries: Iterable<TarEntry>, options: TarOptions = {}): Generator<Buffer> {
  for (const entry of entries) yield* entryChunks(entry);
  const end = options.end ?? "two-blocks";
  if (Buffer.isBuffer(end)) yield end;
  else if (end !== "none") yield Buffer.alloc(end === "two-blocks" ? 2 * BLOCK : BLOCK);
}

/** A pax header entry (`x`, or `g` for a global one) with these records, as bytes for {@link TarEntry.raw}. */
export function paxHeader(records: NonNullable<TarEntry["pax"]>, typeflag: "x" | "g" = "x"): Buffer {
  const body = paxBody(records);
  return Buffer.concat([header({ path: "PaxHeaders/entry", typeflag }, body.length), padded(body)]);
}

/** A GNU long name (`L`) or long link (`K`) entry, as bytes for {@link TarEntry.raw}. */
export function gnuLongHeader(typeflag: "L" | "K", value: string | Buffer): Buffer {
  const body = Buffer.concat([toBuffer(value), Buffer.alloc(1)]);
  return Buffer.concat([header({ path: "././@LongLink", typeflag }, body.length), padded(body)]);
}

/** `records` as pax records: `length key=value\n`, where the length counts itself. */
export function paxBody(records: NonNullable<TarEntry["pax"]>): Buffer {
  const pairs = Array.isArray(records)
    ? (records as readonly (readonly [string, string | Buffer])[])
    : Object.entries(records);
  return Buffer.concat(
    pairs.map(([key, value]) => {
      const rest = Buffer.concat([Buffer.from(` ${key}=`), toBuffer(value), Buffer.from("\n")]);
      let length = rest.length + 1;
      while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
      return Buffer.concat([Buffer.from(String(length)), rest]);
    }),
  );
}

function* entryChunks(entry: TarEntry): Generator<Buffer> {
  if (entry.raw) {
    yield entry.raw;
    return;
  }
  if (entry.sparse) {
    yield* sparseChunks(entry, entry.sparse);
    return;
  }
  const content = toBuffer(entry.content ?? "");
  const pax: [string, string | Buffer][] = Array.isArray(entry.pax)
    ? [...entry.pax]
    : Object.entries((entry.pax as Record<string, string | Buffer> | undefined) ?? {});
  const given = new Set(pax.map(([key]) => key));
  const format = entry.format ?? "pax";
  const path = pathOf(entry);
  const link = toBuffer(entry.linkTarget ?? "");

  if (format === "gnu") {
    if (link.length > 100) yield gnuLongHeader("K", link);
    if (path.length > 100) yield gnuLongHeader("L", path);
  } else if (format === "pax") {
    if (splitName(path) === undefined && !given.has("path")) pax.push(["path", path]);
    if (link.length > 100 && !given.has("linkpath")) pax.push(["linkpath", link]);
    for (const key of ["uid", "gid"] as const) {
      if ((entry[key] ?? 0) > 0o7777777 && !given.has(key)) pax.push([key, String(entry[key])]);
    }
    const mtime = entry.mtime ?? 0;
    if ((mtime < 0 || !Number.isInteger(mtime)) && !given.has("mtime")) pax.push(["mtime", String(mtime)]);
  }
  if (pax.length > 0) yield paxHeader(pax);
  yield header(entry, entry.declaredSize ?? content.length);
  if (content.length > 0) yield padded(content);
}

function* sparseChunks(entry: TarEntry, sparse: SparseContent): Generator<Buffer> {
  const { sparse: _, ...plain } = entry;
  const chunks = sparse.chunks.map((chunk) => ({ offset: chunk.offset, data: toBuffer(chunk.data) }));
  const data = Buffer.concat(chunks.map((chunk) => chunk.data));
  if (sparse.form === "gnu") {
    // Four pairs in the header, 21 in each extension block. @see GNU tar manual, "Old GNU Format"
    const pairs = (list: typeof chunks, block: Buffer, start: number) => {
      for (const [at, chunk] of list.entries()) {
        writeNumber(block, start + at * 24, 12, chunk.offset);
        writeNumber(block, start + at * 24 + 12, 12, chunk.data.length);
      }
    };
    yield header(
      {
        ...plain,
        typeflag: "S",
        format: "gnu",
        patch: (block) => {
          pairs(chunks.slice(0, 4), block, 386);
          block[482] = chunks.length > 4 ? 1 : 0;
          writeNumber(block, 483, 12, sparse.realSize);
          plain.patch?.(block);
        },
      },
      entry.declaredSize ?? data.length,
    );
    for (let at = 4; at < chunks.length; at += 21) {
      const block = Buffer.alloc(BLOCK);
      pairs(chunks.slice(at, at + 21), block, 0);
      block[504] = at + 21 < chunks.length ? 1 : 0;
      yield block;
    }
    if (data.length > 0) yield padded(data);
    return;
  }
  const name = entry.path.toString();
  const records: [string, string][] = [];
  let body = data;
  if (sparse.form === "pax-0.0") {
    records.push(["GNU.sparse.size", String(sparse.realSize)], ["GNU.sparse.numblocks", String(chunks.length)]);
    for (const chunk of chunks) {
      records.push(["GNU.sparse.offset", String(chunk.offset)], ["GNU.sparse.numbytes", String(chunk.data.length)]);
    }
  } else if (sparse.form === "pax-0.1") {
    records.push(["GNU.sparse.name", name], ["GNU.sparse.size", String(sparse.realSize)]);
    records.push(["GNU.sparse.numblocks", String(chunks.length)]);
    records.push(["GNU.sparse.map", chunks.map((chunk) => `${chunk.offset},${chunk.data.length}`).join(",")]);
  } else {
    records.push(["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"], ["GNU.sparse.name", name]);
    records.push(["GNU.sparse.realsize", String(sparse.realSize)]);
    const map = `${chunks.length}\n${chunks.map((chunk) => `${chunk.offset}\n${chunk.data.length}\n`).join("")}`;
    body = Buffer.concat([padded(Buffer.from(map)), data]);
  }
  const path = sparse.form === "pax-0.0" ? name : `GNUSparseFile.0/${name}`.slice(0, 100);
  yield* entryChunks({ ...plain, path, content: body, pax: records });
}

function header(entry: TarEntry, size: number | bigint): Buffer {
  const block = Buffer.alloc(BLOCK);
  const format = entry.format ?? "pax";
  const path = pathOf(entry);
  const split = format === "pax" ? splitName(path) : undefined;
  (split?.name ?? path.subarray(0, 100)).copy(block, 0, 0, 100);
  const isDirectory = entry.type === "dir";
  writeNumber(block, 100, 8, entry.mode ?? (isDirectory ? 0o755 : 0o644));
  // What a pax record says, the header says only as far as it can.
  const headerId = (value: number) => (format === "pax" && value > 0o7777777 ? 0 : value);
  writeNumber(block, 108, 8, headerId(entry.uid ?? 0));
  writeNumber(block, 116, 8, headerId(entry.gid ?? 0));
  writeNumber(block, 124, 12, size);
  const mtime = entry.mtime ?? 0;
  writeNumber(block, 136, 12, format === "pax" ? Math.max(0, Math.floor(mtime)) : mtime);
  block.write(entry.typeflag ?? typeflags[entry.type ?? "file"], 156, 1, "latin1");
  toBuffer(entry.linkTarget ?? "").copy(block, 157, 0, 100);
  if (format !== "v7") {
    block.write(format === "gnu" ? "ustar  \0" : "ustar\x0000", 257, 8, "latin1");
    block.write(entry.uname ?? "", 265, 32, "utf8");
    block.write(entry.gname ?? "", 297, 32, "utf8");
    if (entry.device) {
      writeNumber(block, 329, 8, entry.device[0]);
      writeNumber(block, 337, 8, entry.device[1]);
    }
    split?.prefix.copy(block, 345, 0, 155);
  }
  entry.patch?.(block);
  block.fill(0x20, 148, 156);
  const checksum = entry.checksum ?? block.reduce((sum, byte) => sum + byte, 0);
  block.write(`${checksum.toString(8).padStart(6, "0")}\0 `, 148, 8, "latin1");
  return block;
}

/** Octal where it fits (one byte is left for a NUL), else base-256, as GNU tar does. */
function writeNumber(block: Buffer, at: number, width: number, value: number | bigint): void {
  const big = BigInt(value);
  if (big >= 0n && big < 1n << BigInt(3 * (width - 1))) {
    block.write(`${big.toString(8).padStart(width - 1, "0")}\0`, at, width, "latin1");
    return;
  }
  let rest = BigInt.asUintN(8 * width, big);
  for (let index = width - 1; index >= 0; index--) {
    block[at + index] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  block[at] = (block[at] ?? 0) | 0x80;
}

function splitName(path: Buffer): { prefix: Buffer; name: Buffer } | undefined {
  if (path.length <= 100) return { prefix: Buffer.alloc(0), name: path };
  const from = path.length - 101;
  for (let at = Math.max(1, from); at <= Math.min(155, path.length - 2); at++) {
    if (path[at] === 0x2f) return { prefix: path.subarray(0, at), name: path.subarray(at + 1) };
  }
  return undefined;
}

function pathOf(entry: TarEntry): Buffer {
  if (typeof entry.path !== "string") return entry.path;
  return Buffer.from(entry.type === "dir" && !entry.path.endsWith("/") ? `${entry.path}/` : entry.path);
}

function padded(content: Buffer): Buffer {
  const rest = content.length % BLOCK;
  return rest === 0 ? content : Buffer.concat([content, Buffer.alloc(BLOCK - rest)]);
}

function toBuffer(value: string | Buffer): Buffer {
  return typeof value === "string" ? Buffer.from(value) : value;
}
