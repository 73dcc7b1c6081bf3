import type { Limits } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import {
  blockBytes,
  isZeroBlock,
  numeric,
  parseHeader,
  parsePaxNumber,
  parsePaxRecords,
  paxXattrs,
  TarFault,
  type TarHeader,
  text,
} from "./tar-header.ts";
import { checkSparsePieces, gnuSparsePieces, PaxSparseHead, paxSparsePieces, type SparsePiece } from "./tar-sparse.ts";

/** A tar entry with its extended headers applied. Strings are latin-1 bytes. */
export interface TarEntry {
  readonly typeflag: string;
  readonly name: string;
  readonly link: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: number;
  /** Bytes of content that will be handed on, holes of sparse files included. */
  readonly size: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** Extended attributes, all of them. */
  readonly xattrs: ReadonlyMap<string, string>;
}

/** What the reader calls, in stream order: `begin`, `content` for each piece, `finish`. Pieces are valid during the call only. */
export interface TarHandler {
  begin(entry: TarEntry): void;
  content(bytes: Buffer): void;
  finish(): void;
}

type State = "header" | "extension" | "sparseBlocks" | "sparseHead" | "data" | "end";

const zeros = Buffer.alloc(256 * 1024);
const headerOnlyTypes = new Set(["1", "2", "3", "4", "5", "6"]);

/**
 * Reads a tar stream that is pushed into it, in bounded memory and without trusting any size.
 * It follows Go's `archive/tar` where readers differ (analysis.md B1–B6), because that is what runtimes see.
 * @throws StowageError `LAYER_TAR_INVALID`, `LIMIT_EXCEEDED`
 */
export class TarReader {
  readonly #handler: TarHandler;
  readonly #limits: Limits;
  readonly #layer: string;
  readonly #block = Buffer.allocUnsafe(blockBytes);
  #blockFilled = 0;
  #state: State = "header";
  #sawZeroBlock = false;
  #offset = 0;
  #entries = 0;
  /** Bytes of the stream that are still data of the present entry, and padding behind them. */
  #remaining = 0;
  #padding = 0;
  #extension: { typeflag: string; parts: Buffer[]; bytes: number } | undefined;
  #pax: Map<string, string> | undefined;
  #longName: string | undefined;
  #longLink: string | undefined;
  #extensionsInRow = 0;
  #pending: { entry: TarEntry; pieces: SparsePiece[]; storedSize: number; mapBytes: number } | undefined;
  #sparse:
    | { pieces: readonly SparsePiece[]; next: number; position: number; realSize: number; leftInPiece: number }
    | undefined;
  #sparseHead = new PaxSparseHead();

  constructor(handler: TarHandler, limits: Limits, layer: string) {
    this.#handler = handler;
    this.#limits = limits;
    this.#layer = layer;
  }

  write(chunk: Buffer): void {
    try {
      let at = 0;
      while (at < chunk.length) {
        const used = this.#step(chunk, at);
        at += used;
        this.#offset += used;
      }
    } catch (error) {
      throw this.#located(error);
    }
  }

  /** The stream has ended. A missing end mark is accepted, and so is a cut in the last padding; any other cut is an error. */
  end(): void {
    const isClean =
      this.#state === "end" ||
      (this.#state === "header" && this.#blockFilled === 0) ||
      ((this.#state === "data" || this.#state === "extension") && this.#remaining === 0);
    if (!isClean) throw this.#located(new TarFault("the stream ends inside an entry"));
    if (this.#state === "data") this.#endOfData();
  }

  #located(error: unknown): unknown {
    if (!(error instanceof TarFault)) return error;
    return new StowageError(
      "LAYER_TAR_INVALID",
      { layer: this.#layer, offset: this.#offset, reason: error.message },
      { cause: error },
    );
  }

  /** Consumes at least one byte of `chunk` from `at`; returns how many. */
  #step(chunk: Buffer, at: number): number {
    switch (this.#state) {
      case "end":
        return chunk.length - at;
      case "header":
      case "sparseBlocks": {
        const used = this.#fillBlock(chunk, at);
        if (this.#blockFilled === blockBytes) {
          this.#blockFilled = 0;
          if (this.#state === "header") this.#header();
          else this.#sparseBlock();
        }
        return used;
      }
      default:
        return this.#consume(chunk, at);
    }
  }

  #fillBlock(chunk: Buffer, at: number): number {
    const used = Math.min(blockBytes - this.#blockFilled, chunk.length - at);
    chunk.copy(this.#block, this.#blockFilled, at, at + used);
    this.#blockFilled += used;
    return used;
  }

  #consume(chunk: Buffer, at: number): number {
    if (this.#remaining === 0) {
      const used = Math.min(this.#padding, chunk.length - at);
      this.#padding -= used;
      if (this.#padding === 0) this.#endOfData();
      return used;
    }
    const used = Math.min(this.#remaining, chunk.length - at);
    const bytes = chunk.subarray(at, at + used);
    this.#remaining -= used;
    if (this.#state === "extension") this.#extensionBytes(bytes);
    else if (this.#state === "sparseHead") this.#sparseHeadData(bytes);
    else if (this.#sparse) this.#sparseContent(bytes);
    else this.#handler.content(bytes);
    if (this.#remaining === 0 && this.#padding === 0 && this.#state !== "header") this.#endOfData();
    return used;
  }

  /** The entry's data and padding are over. */
  #endOfData(): void {
    if (this.#state === "sparseHead") throw new TarFault("a sparse map is cut off");
    if (this.#state === "extension") this.#endExtension();
    else {
      if (this.#sparse) this.#hole(this.#sparse.realSize);
      this.#sparse = undefined;
      this.#handler.finish();
    }
    this.#state = "header";
  }

  #header(): void {
    if (isZeroBlock(this.#block)) {
      if (this.#sawZeroBlock) this.#state = "end";
      this.#sawZeroBlock = true;
      return;
    }
    if (this.#sawZeroBlock) throw new TarFault("a single zero block is followed by something else");
    const header = parseHeader(this.#block);
    if (header.size < 0) throw new TarFault("a size is negative");
    switch (header.typeflag) {
      case "x":
      case "g":
      case "L":
      case "K":
        this.#beginExtension(header);
        return;
      default:
        this.#beginEntry(header);
    }
  }

  #beginExtension(header: TarHeader): void {
    if (header.size > this.#limits.entryHeaderBytesMax) {
      throw this.#limit("entryHeaderBytesMax", header.size);
    }
    // An endless chain of headers before an entry costs time only, but for ever.
    if (++this.#extensionsInRow > 1000) throw new TarFault("too many extended headers before one entry");
    this.#extension = { typeflag: header.typeflag, parts: [], bytes: header.size };
    this.#state = "extension";
    this.#expect(header.size);
    if (header.size === 0) this.#endOfData();
  }

  #expect(size: number): void {
    this.#remaining = size;
    this.#padding = (blockBytes - (size % blockBytes)) % blockBytes;
  }

  #extensionBytes(bytes: Buffer): void {
    this.#extension?.parts.push(Buffer.from(bytes));
  }

  #endExtension(): void {
    if (!this.#extension) return;
    const data = Buffer.concat(this.#extension.parts);
    const { typeflag } = this.#extension;
    this.#extension = undefined;
    if (typeflag === "x") this.#pax = parsePaxRecords(data);
    else if (typeflag === "L") this.#longName = text(data, 0, data.length);
    else if (typeflag === "K") this.#longLink = text(data, 0, data.length);
    else {
      // Global headers: runtimes return them as entries of their own, which are skipped; their values apply to nothing.
      parsePaxRecords(data);
      this.#forgetExtensions();
    }
  }

  #forgetExtensions(): void {
    this.#pax = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
  }

  #beginEntry(header: TarHeader): void {
    if (++this.#entries > this.#limits.layerEntriesMax) throw this.#limit("layerEntriesMax", this.#entries);
    const pax = this.#pax;
    const size = this.#number("size", header.size);
    if (size < 0) throw new TarFault("a size is negative");
    const sparsePax = pax && header.typeflag !== "S" && isPaxSparse(pax) ? pax : undefined;
    const name = sparsePax?.get("GNU.sparse.name") || this.#longName || pax?.get("path") || header.name;
    const link = this.#longLink || pax?.get("linkpath") || header.linkname;
    if (name.length > this.#limits.pathBytesMax || link.length > this.#limits.pathBytesMax) {
      throw this.#limit("pathBytesMax", Math.max(name.length, link.length));
    }
    const typeflag = header.typeflag === "\0" ? (name.endsWith("/") ? "5" : "0") : header.typeflag;
    const storedSize = headerOnlyTypes.has(typeflag) ? 0 : size;
    const entry: TarEntry = {
      typeflag,
      name,
      link,
      mode: header.mode & 0o7777,
      uid: this.#number("uid", header.uid),
      gid: this.#number("gid", header.gid),
      mtime: this.#number("mtime", header.mtime),
      size: storedSize,
      deviceMajor: header.deviceMajor,
      deviceMinor: header.deviceMinor,
      xattrs: paxXattrs(pax),
    };
    this.#forgetExtensions();
    this.#extensionsInRow = 0;
    if (typeflag === "S" && header.format !== "gnu") throw new TarFault("a sparse file of an unknown format");
    if (sparsePax && headerOnlyTypes.has(typeflag)) throw new TarFault("what holds no data is said to be sparse");
    if (typeflag === "S") this.#beginGnuSparse(entry, storedSize);
    else if (sparsePax) this.#beginPaxSparse(entry, storedSize, sparsePax);
    else this.#beginData(entry, storedSize);
  }

  #number(key: string, fallback: number): number {
    const value = this.#pax?.get(key);
    return value === undefined || value === "" ? fallback : parsePaxNumber(value);
  }

  #beginData(entry: TarEntry, storedSize: number): void {
    this.#state = "data";
    this.#expect(storedSize);
    this.#handler.begin(entry);
    if (storedSize === 0) this.#endOfData();
  }

  #beginGnuSparse(entry: TarEntry, storedSize: number): void {
    const pieces = gnuSparsePieces(this.#block, 386, 4);
    const realSize = numeric(this.#block, 483, 12);
    this.#pending = { entry: { ...entry, typeflag: "0", size: realSize }, pieces, storedSize, mapBytes: 0 };
    if (this.#block[482] !== 0) this.#state = "sparseBlocks";
    else this.#beginSparseData(this.#pending.entry, pieces, storedSize);
  }

  #sparseBlock(): void {
    if (!this.#pending) return;
    this.#pending.mapBytes += blockBytes;
    // A map is a header of a kind, and as endless.
    if (this.#pending.mapBytes > this.#limits.entryHeaderBytesMax)
      throw this.#limit("entryHeaderBytesMax", this.#pending.mapBytes);
    this.#pending.pieces.push(...gnuSparsePieces(this.#block, 0, 21));
    if (this.#block[504] !== 0) return;
    const { entry, pieces, storedSize } = this.#pending;
    this.#beginSparseData(entry, pieces, storedSize);
  }

  #beginPaxSparse(entry: TarEntry, storedSize: number, pax: ReadonlyMap<string, string>): void {
    const real = pax.get("GNU.sparse.size") || pax.get("GNU.sparse.realsize");
    const realSize = real ? parsePaxNumber(real) : storedSize;
    const sized = { ...entry, size: realSize };
    if (pax.get("GNU.sparse.major") === "1") {
      this.#pending = { entry: sized, pieces: [], storedSize, mapBytes: 0 };
      this.#sparseHead = new PaxSparseHead();
      this.#state = "sparseHead";
      this.#expect(storedSize);
      if (storedSize === 0) throw new TarFault("a sparse map is missing");
      return;
    }
    const map = pax.get("GNU.sparse.map") ?? "";
    const pieces = map === "" ? [] : paxSparsePieces(map, pax.get("GNU.sparse.numblocks"));
    this.#beginSparseData(sized, pieces, storedSize);
  }

  #sparseHeadData(bytes: Buffer): void {
    if (!this.#pending) return;
    const head = this.#sparseHead;
    const rest = bytes.subarray(head.take(bytes));
    if (head.bytes > this.#limits.entryHeaderBytesMax) throw this.#limit("entryHeaderBytesMax", head.bytes);
    if (!head.isComplete) return;
    const { entry, storedSize } = this.#pending;
    const remaining = this.#remaining;
    const padding = this.#padding;
    this.#beginSparseData(entry, head.pieces, storedSize - head.bytes);
    if (this.#sparse === undefined) return;
    this.#remaining = remaining;
    this.#padding = padding;
    if (rest.length > 0) this.#sparseContent(rest);
  }

  #beginSparseData(entry: TarEntry, pieces: readonly SparsePiece[], storedSize: number): void {
    checkSparsePieces(pieces, entry.size, storedSize);
    this.#pending = undefined;
    this.#sparse = { pieces, next: 0, position: 0, realSize: entry.size, leftInPiece: 0 };
    this.#state = "data";
    this.#expect(storedSize);
    this.#handler.begin(entry);
    if (storedSize === 0) this.#endOfData();
  }

  #sparseContent(bytes: Buffer): void {
    const sparse = this.#sparse;
    if (!sparse) return;
    for (let at = 0; at < bytes.length; ) {
      while (sparse.leftInPiece === 0) {
        const piece = sparse.pieces[sparse.next++];
        if (!piece) throw new TarFault("a sparse map is shorter than its data");
        this.#hole(piece.offset);
        sparse.leftInPiece = piece.length;
      }
      const used = Math.min(sparse.leftInPiece, bytes.length - at);
      this.#handler.content(bytes.subarray(at, at + used));
      sparse.leftInPiece -= used;
      sparse.position += used;
      at += used;
    }
  }

  /** Zeros up to `offset`. */
  #hole(offset: number): void {
    const sparse = this.#sparse;
    while (sparse && sparse.position < offset) {
      const length = Math.min(zeros.length, offset - sparse.position);
      this.#handler.content(zeros.subarray(0, length));
      sparse.position += length;
    }
  }

  #limit(limit: "entryHeaderBytesMax" | "layerEntriesMax" | "pathBytesMax", found: number): StowageError {
    return new StowageError(
      "LIMIT_EXCEEDED",
      { limit, max: this.#limits[limit], found, where: this.#layer },
      { hint: `raise it with --limit ${limit}=…, if you trust the image` },
    );
  }
}

/** Whether an entry is sparse, for Go: by its version, or where none is told by its map. */
function isPaxSparse(pax: ReadonlyMap<string, string>): boolean {
  const major = pax.get("GNU.sparse.major") ?? "";
  const minor = pax.get("GNU.sparse.minor") ?? "";
  if (major === "" && minor === "") return (pax.get("GNU.sparse.map") ?? "") !== "";
  return (major === "0" && (minor === "0" || minor === "1")) || (major === "1" && minor === "0");
}
