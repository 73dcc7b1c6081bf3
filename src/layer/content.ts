import { createHash, type Hash, hash } from "node:crypto";
import { digestsLength } from "./entry.ts";
import type { Spill } from "./spill.ts";

const algorithms = ["md5", "sha1", "sha256"] as const;

/** MD5, SHA-1 and SHA-256 of nothing. */
const emptyDigests = digestsOf(Buffer.alloc(0));

function digestsOf(bytes: Buffer): string {
  return algorithms.map((algorithm) => hash(algorithm, bytes, "binary")).join("");
}

/** The three digests of one file at a time. A file that comes in one piece, as most do, takes the short way. */
export class ContentDigester {
  #hashes: Hash[] | undefined;
  #whole: string | undefined;
  #size = 0;
  #seen = 0;

  begin(size: number): void {
    this.#size = size;
    this.#seen = 0;
    this.#hashes = undefined;
    this.#whole = undefined;
  }

  update(bytes: Buffer): void {
    if (this.#seen === 0 && bytes.length === this.#size) this.#whole = digestsOf(bytes);
    else {
      this.#hashes ??= algorithms.map((algorithm) => createHash(algorithm));
      for (const hash of this.#hashes) hash.update(bytes);
    }
    this.#seen += bytes.length;
  }

  /** 68 latin-1 characters. */
  end(): string {
    if (this.#size === 0) return emptyDigests;
    const digests = this.#whole ?? (this.#hashes ?? []).map((hash) => hash.digest("binary")).join("");
    if (digests.length !== digestsLength) throw new RangeError("a file ended before its content");
    return digests;
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
