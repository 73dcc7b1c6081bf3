/**
 * An rpm header without magic, as the database keeps it: `il`, `dl`, `il` index entries {tag, type, offset, count}, `dl` bytes of data, all
 * big-endian.
 *
 * Where an index entry leads beyond the data, its tag reads as absent and counts in {@link damaged}. Entries added at installation stand behind
 * the signed region and replace those of the same tag in it: the last of equal tags counts.
 *
 * @see https://rpm-software-management.github.io/rpm/manual/format_header.html
 */
export class RpmHeader {
  readonly #entries = new Map<number, { readonly type: number; readonly offset: number; readonly count: number }>();
  readonly #data: Buffer;
  #damaged = 0;

  private constructor(data: Buffer) {
    this.#data = data;
  }

  /** A header, or why it is none. */
  static parse(blob: Buffer): RpmHeader | string {
    if (blob.length < 8) return "shorter than its own lengths";
    const entries = blob.readUInt32BE(0);
    const dataBytes = blob.readUInt32BE(4);
    if (entries === 0 || entries > ENTRIES_MAX || dataBytes >= DATA_BYTES_MAX)
      return "more entries or data than rpm allows";
    const dataStart = 8 + entries * 16;
    if (dataStart + dataBytes > blob.length) return "shorter than it says";
    const header = new RpmHeader(blob.subarray(dataStart, dataStart + dataBytes));
    for (let at = 8; at < dataStart; at += 16) header.#addEntry(blob, at);
    return header;
  }

  #addEntry(blob: Buffer, at: number): void {
    const tag = blob.readUInt32BE(at);
    const entry = {
      type: blob.readUInt32BE(at + 4),
      offset: blob.readInt32BE(at + 8),
      count: blob.readUInt32BE(at + 12),
    };
    const bytes = ELEMENT_BYTES[entry.type];
    // Elements without a fixed size end with NUL, so they have a byte at least.
    const isSane =
      bytes !== undefined && entry.offset >= 0 && entry.offset + entry.count * Math.max(bytes, 1) <= this.#data.length;
    if (isSane) {
      this.#entries.set(tag, entry);
      // Names that came with the installation replace the old form of the same list.
      if (tag === rpmTag.baseNames) this.#entries.delete(rpmTag.oldFileNames);
    } else this.#damaged += 1;
  }

  /** How many index entries were unusable. */
  get damaged(): number {
    return this.#damaged;
  }

  has(tag: number): boolean {
    return this.#entries.has(tag);
  }

  /** The strings of a string, string array or translated string (whose first is the default language); none if there is no such tag. */
  strings(tag: number): RpmStrings {
    const entry = this.#entries.get(tag);
    if (entry === undefined || ![6, 8, 9].includes(entry.type)) return RpmStrings.none;
    const count = entry.type === 6 ? 1 : Math.min(entry.count, ARRAY_MAX);
    const starts = new Uint32Array(count + 1);
    starts[0] = entry.offset;
    for (let index = 0; index < count; index += 1) {
      const end = this.#data.indexOf(0, starts[index]);
      if (end < 0) return RpmStrings.none;
      starts[index + 1] = end + 1;
    }
    return new RpmStrings(this.#data, starts);
  }

  /** The first string; `undefined` for absent and for what rpm writes for it. */
  string(tag: number): string | undefined {
    const text = this.strings(tag).at(0)?.toString("utf8");
    return text === undefined || text === "" || text === "(none)" ? undefined : text;
  }

  /** Elements of an array of unsigned integers; 64-bit ones beyond 2⁵³ lose precision. Empty if there is none. */
  numbers(tag: number): Float64Array {
    const entry = this.#entries.get(tag);
    if (entry === undefined || entry.type < 1 || entry.type > 5) return new Float64Array();
    const bytes = ELEMENT_BYTES[entry.type] ?? 1;
    const numbers = new Float64Array(Math.min(entry.count, ARRAY_MAX));
    for (let index = 0; index < numbers.length; index += 1) {
      const at = entry.offset + index * bytes;
      numbers[index] = bytes === 8 ? Number(this.#data.readBigUInt64BE(at)) : this.#data.readUIntBE(at, bytes);
    }
    return numbers;
  }
}

/** Strings that lie one behind the other, each ended by NUL; a million of them cost four bytes each until they are asked for. */
class RpmStrings {
  static readonly none = new RpmStrings(Buffer.alloc(0), new Uint32Array(1));
  readonly #data: Buffer;
  /** Where each begins, and where the next one would. */
  readonly #starts: Uint32Array;

  constructor(data: Buffer, starts: Uint32Array) {
    this.#data = data;
    this.#starts = starts;
  }

  get length(): number {
    return this.#starts.length - 1;
  }

  /** Bytes without the NUL. */
  at(index: number): Buffer | undefined {
    const start = this.#starts[index];
    const next = this.#starts[index + 1];
    return start === undefined || next === undefined ? undefined : this.#data.subarray(start, next - 1);
  }
}

const ENTRIES_MAX = 65_535;
const DATA_BYTES_MAX = 256 * 1024 * 1024;
const ARRAY_MAX = 1_048_575;

/** By type: null, char, int8, int16, int32, int64, string, binary, string array, translated string; 0 is "until NUL". */
const ELEMENT_BYTES: readonly (number | undefined)[] = [0, 1, 1, 2, 4, 8, 0, 1, 0, 0];

/** @see rpm's `include/rpm/rpmtag.h` */
export const rpmTag = {
  name: 1000,
  version: 1001,
  release: 1002,
  epoch: 1003,
  summary: 1004,
  size: 1009,
  vendor: 1011,
  license: 1014,
  packager: 1015,
  url: 1020,
  architecture: 1022,
  oldFileNames: 1027,
  fileSizes: 1028,
  fileStates: 1029,
  fileModes: 1030,
  fileDigests: 1035,
  fileLinkTargets: 1036,
  fileFlags: 1037,
  fileUserNames: 1039,
  fileGroupNames: 1040,
  sourceRpm: 1044,
  directoryIndexes: 1116,
  baseNames: 1117,
  directoryNames: 1118,
  longFileSizes: 5008,
  longSize: 5009,
  fileDigestAlgorithm: 5011,
  modularityLabel: 5096,
} as const;
