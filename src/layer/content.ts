import { createHash, type Hash, hash } from "node:crypto";
import { Md5Lanes } from "./md5-lanes.ts";
import type { Spill } from "./spill.ts";

const algorithms = ["md5", "sha1", "sha256"] as const;

/** MD5, SHA-1 and SHA-256 of nothing. */
const emptyDigests = algorithms.map((algorithm) => hash(algorithm, "", "binary")).join("");

/** A longer file is digested alone, as its bytes come: few are, and they would have to be kept. */
const gatheredBytesMax = 1024 * 1024;

/** The three digests of one file at a time, as 68 latin-1 characters. Short files are gathered until {@link settle}, for their MD5 is made together. */
export class ContentDigester implements Disposable {
  readonly #lanes = Md5Lanes.lease();
  /** SHA-1 and SHA-256 of the gathered files. */
  #gathered: string[] = [];
  #room: Buffer | undefined;
  #hashes: readonly Hash[] | undefined;
  #size = 0;
  #seen = 0;

  /** Whether a file may begin before the gathered ones are settled. */
  hasRoomFor(size: number): boolean {
    return size > gatheredBytesMax || this.#lanes === undefined || this.#lanes.hasRoomFor(size);
  }

  begin(size: number): void {
    this.#size = size;
    this.#seen = 0;
    this.#room = size > 0 && size <= gatheredBytesMax ? this.#lanes?.add(size) : undefined;
    this.#hashes = this.#room || size === 0 ? undefined : algorithms.map((algorithm) => createHash(algorithm));
  }

  update(bytes: Buffer): void {
    if (this.#room) bytes.copy(this.#room, this.#seen);
    for (const hash of this.#hashes ?? []) hash.update(bytes);
    this.#seen += bytes.length;
  }

  /** Nothing for a file that was gathered. */
  end(): string | undefined {
    if (this.#seen !== this.#size) throw new RangeError("a file ended before its content");
    if (this.#size === 0) return emptyDigests;
    const room = this.#room;
    if (room) this.#gathered.push([hash("sha1", room, "binary"), hash("sha256", room, "binary")].join(""));
    return this.#hashes?.map((hash) => hash.digest("binary")).join("");
  }

  /** Of the gathered files, in their order. */
  settle(): readonly string[] {
    const md5 = this.#lanes?.digest() ?? Buffer.alloc(0);
    const gathered = this.#gathered;
    this.#gathered = [];
    if (md5.length !== 16 * gathered.length) throw new RangeError("a file is settled before its content has come");
    return gathered.map((others, index) => [md5.toString("latin1", 16 * index, 16 * (index + 1)), others].join(""));
  }

  [Symbol.dispose](): void {
    this.#lanes?.[Symbol.dispose]();
  }
}

const memoryBytesMax = 4 * 1024 * 1024;

/** Contents of the files that catalogers ask for, by the sequence of their tar entry: in memory while they are few, then on the spill. */
export class KeptContents {
  readonly #spill: Spill;
  readonly #contents = new Map<
    number,
    { readonly pieces: Buffer[] } | { readonly offset: number; readonly length: number }
  >();
  #memoryBytes = 0;
  #totalBytes = 0;
  #present: { sequence: number; pieces: Buffer[]; spilledFrom: number | undefined; length: number } | undefined;

  constructor(spill: Spill) {
    this.#spill = spill;
  }

  get totalBytes(): number {
    return this.#totalBytes;
  }

  has(sequence: number): boolean {
    return this.#contents.has(sequence);
  }

  begin(sequence: number, sizeBytes: number): void {
    const spilledFrom = this.#memoryBytes + sizeBytes > memoryBytesMax ? this.#spill.sizeBytes : undefined;
    this.#present = { sequence, pieces: [], spilledFrom, length: 0 };
    this.#totalBytes += sizeBytes;
  }

  add(bytes: Buffer): void {
    const present = this.#present;
    if (!present) return;
    present.length += bytes.length;
    if (present.spilledFrom === undefined) present.pieces.push(Buffer.from(bytes));
    else this.#spill.append(bytes);
  }

  end(): void {
    const present = this.#present;
    if (!present) return;
    this.#present = undefined;
    if (present.spilledFrom === undefined) {
      this.#memoryBytes += present.length;
      this.#contents.set(present.sequence, { pieces: present.pieces });
    } else this.#contents.set(present.sequence, { offset: present.spilledFrom, length: present.length });
  }

  read(sequence: number): Buffer {
    const content = this.#contents.get(sequence);
    if (!content) throw new RangeError("this file's content was not kept");
    return "pieces" in content ? Buffer.concat(content.pieces) : this.#spill.read(content.offset, content.length);
  }
}
