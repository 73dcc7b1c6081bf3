import { ByteReader, ByteWriter } from "./bytes.ts";
import type { LayerNode } from "./entry.ts";
import { readNode, writeNode } from "./node-codec.ts";
import type { PathKey } from "./path.ts";
import type { Spill } from "./spill.ts";

/** One tar entry (or mark) on its way to the layer document. */
export interface SortRecord {
  readonly key: PathKey;
  /** Place in the tar stream; of two records with one key the later wins. */
  readonly sequence: number;
  readonly mark: "whiteout" | "opaque" | undefined;
  readonly node: LayerNode | undefined;
  /** Not an entry: a hard link's wish for the content of this key. `node` is the link's, `sequence` too. */
  readonly isRequest: boolean;
  /** How many symlinked parents led here. */
  readonly hops: number;
  /** Length of the key of the directory that the last of them led to; 0 where none did. */
  readonly targetLength: number;
}

interface Run {
  readonly offset: number;
  readonly length: number;
}

const runRecordsMax = 8_192;
const runBytesMax = 8 * 1024 * 1024;
/** What is read of each run at once, and of all runs together: a layer of millions of entries has hundreds. */
const runReadBytesMax = 64 * 1024;
const runReadBytesMin = 8 * 1024;
const runsReadBytes = 2 * 1024 * 1024;

/**
 * Sorts any number of records in bounded memory: sorted runs on a spill, merged when read. In order of key, then sequence.
 * Up to one run stays in memory and never touches the spill.
 */
export class RecordSorter {
  readonly #spill: Spill;
  readonly #runs: Run[] = [];
  #records: SortRecord[] = [];
  #bytes = 0;
  #isSorted = true;

  constructor(spill: Spill) {
    this.#spill = spill;
  }

  get isEmpty(): boolean {
    return this.#records.length === 0 && this.#runs.length === 0;
  }

  add(record: SortRecord): void {
    const last = this.#records.at(-1);
    if (last !== undefined && compareRecords(last, record) > 0) this.#isSorted = false;
    this.#records.push(record);
    this.#bytes += record.key.length + (record.node?.link?.length ?? 0) + xattrBytes(record.node);
    if (this.#records.length >= runRecordsMax || this.#bytes >= runBytesMax) this.#flush();
  }

  /** All records in order; may be read again. What is added while they are read comes with the next reading. */
  *records(): Generator<SortRecord> {
    this.#sort();
    if (this.#runs.length === 0) {
      yield* this.#records.slice();
      return;
    }
    this.#flush();
    const share = Math.floor(runsReadBytes / this.#runs.length);
    const blockBytes = Math.min(runReadBytesMax, Math.max(runReadBytesMin, share));
    yield* mergeSorted(this.#runs.map((run) => this.#read(run, blockBytes)));
  }

  #sort(): void {
    if (!this.#isSorted) this.#records.sort(compareRecords);
    this.#isSorted = true;
  }

  #flush(): void {
    if (this.#records.length === 0) return;
    this.#sort();
    const writer = new ByteWriter();
    const offset = this.#spill.sizeBytes;
    for (const record of this.#records) {
      writeRecord(writer, record);
      if (writer.length >= 256 * 1024) this.#spill.append(writer.take());
    }
    this.#spill.append(writer.take());
    this.#runs.push({ offset, length: this.#spill.sizeBytes - offset });
    this.#records = [];
    this.#bytes = 0;
  }

  *#read(run: Run, blockBytes: number): Generator<SortRecord> {
    const end = run.offset + run.length;
    let at = run.offset;
    let buffer = Buffer.allocUnsafeSlow(Math.min(blockBytes, run.length));
    while (at < end) {
      const filled = this.#spill.readInto(buffer.subarray(0, end - at), at);
      const block = buffer.subarray(0, filled);
      let done = 0;
      while (done < block.length) {
        const length = readLength(block, done);
        if (length === undefined || length.next + length.value > block.length) break;
        yield readRecord(new ByteReader(block, length.next));
        done = length.next + length.value;
      }
      if (done === 0) {
        if (filled < buffer.length) throw new RangeError("a run of records is shorter than what was written to it");
        // A record larger than a block: it is read with a larger one.
        buffer = Buffer.allocUnsafeSlow(buffer.length * 2);
      } else if (buffer.length > blockBytes) buffer = Buffer.allocUnsafeSlow(blockBytes);
      at += done;
    }
  }
}

/** By key, then sequence. Records that agree in both are told apart, so that the order is one whatever the runs. */
export function compareRecords(a: SortRecord, b: SortRecord): number {
  if (a.key < b.key) return -1;
  if (a.key > b.key) return 1;
  return a.sequence - b.sequence || Number(a.isRequest) - Number(b.isRequest) || a.hops - b.hops;
}

/** Merges sorted sequences into one. */
export function* mergeSorted(sequences: readonly Iterator<SortRecord>[]): Generator<SortRecord> {
  const heap: { record: SortRecord; from: Iterator<SortRecord> }[] = [];
  for (const from of sequences) {
    const { value, done } = from.next();
    if (!done) heap.push({ record: value, from });
  }
  for (let i = (heap.length >> 1) - 1; i >= 0; i--) siftDown(heap, i);
  for (let top = heap[0]; top !== undefined; top = heap[0]) {
    yield top.record;
    const { value, done } = top.from.next();
    if (done) {
      const last = heap.pop() as typeof top;
      if (heap.length === 0) return;
      heap[0] = last;
    } else top.record = value;
    siftDown(heap, 0);
  }
}

function siftDown(heap: { record: SortRecord }[], start: number): void {
  for (let at = start; ; ) {
    let least = at;
    for (const child of [2 * at + 1, 2 * at + 2]) {
      const candidate = heap[child];
      if (candidate && compareRecords(candidate.record, (heap[least] as { record: SortRecord }).record) < 0)
        least = child;
    }
    if (least === at) return;
    [heap[at], heap[least]] = [heap[least] as { record: SortRecord }, heap[at] as { record: SortRecord }];
    at = least;
  }
}

const scratch = new ByteWriter();

function writeRecord(writer: ByteWriter, record: SortRecord): void {
  scratch.text(record.key);
  scratch.varint(record.sequence);
  scratch.varint(record.hops);
  scratch.varint(record.targetLength);
  scratch.byte((record.mark === "whiteout" ? 1 : record.mark === "opaque" ? 2 : 0) | (record.isRequest ? 4 : 0));
  if (record.node) writeNode(scratch, record.node);
  writer.bytes(scratch.take());
}

function readRecord(reader: ByteReader): SortRecord {
  const key = reader.text() as PathKey;
  const sequence = reader.varint();
  const hops = reader.varint();
  const targetLength = reader.varint();
  const flags = reader.byte();
  const mark = ([undefined, "whiteout", "opaque"] as const)[flags & 3];
  const node = mark === undefined ? readNode(reader) : undefined;
  return { key, sequence, hops, targetLength, mark, isRequest: flags >= 4, node };
}

/** Length prefix at `at`; undefined when the block ends inside it. */
function readLength(block: Buffer, at: number): { value: number; next: number } | undefined {
  let value = 0;
  let factor = 1;
  for (let i = at; i < block.length; i++) {
    const byte = block[i] as number;
    value += (byte & 0x7f) * factor;
    if (byte < 0x80) return { value, next: i + 1 };
    factor *= 0x80;
  }
  return undefined;
}

function xattrBytes(node: LayerNode | undefined): number {
  if (!node?.xattrs) return 0;
  return Object.entries(node.xattrs).reduce((sum, [name, value]) => sum + name.length + value.length, 0);
}
