import { hash } from "node:crypto";
import { blockBytes, lanes, Md5Kernel, messagesAt } from "./md5-kernel.ts";

/** All messages that wait, with their padding. */
const waitingBytesMax = 4 * 1024 * 1024 - messagesAt;
/** Padding: a byte, and the length. */
const paddingBytesMin = 9;
const digestWords = 4;

/** Their memory is never given back while the thread lives: the next layer needs it. */
const idle: Md5Lanes[] = [];

function blocksOf(bytes: number): number {
  return Math.ceil((bytes + paddingBytesMin) / blockBytes);
}

/** MD5 of short messages: gathers them, and digests several at once. */
export class Md5Lanes implements Disposable {
  readonly #kernel = new Md5Kernel(waitingBytesMax);
  /** Of each message, where it begins and its blocks. */
  #begins: number[] = [];
  #blocks: number[] = [];
  #end = messagesAt;
  readonly #blocksLeft = new Int32Array(lanes);
  readonly #running = new Int32Array(lanes);

  /** Of this thread alone until it is disposed of. Nothing where the processor can't, or does it wrong. */
  static lease(): Md5Lanes | undefined {
    return idle.pop() ?? Md5Lanes.#create();
  }

  static #create(): Md5Lanes | undefined {
    try {
      const created = new Md5Lanes();
      const samples = Array.from({ length: lanes }, (_, lane) => Buffer.alloc(2 * blockBytes, lane));
      for (const sample of samples) created.add(sample.length)?.set(sample);
      const expected = Buffer.concat(samples.map((sample) => hash("md5", sample, "buffer")));
      return created.digest().equals(expected) ? created : undefined;
    } catch {
      return undefined;
    }
  }

  [Symbol.dispose](): void {
    this.#clear();
    idle.push(this);
  }

  hasRoomFor(bytes: number): boolean {
    return this.#end + blocksOf(bytes) * blockBytes - messagesAt <= waitingBytesMax;
  }

  /** Memory for the next message, to be filled before {@link digest} is called; nothing where there is no room until then. */
  add(bytes: number): Buffer | undefined {
    if (!this.hasRoomFor(bytes)) return undefined;
    const blocks = blocksOf(bytes);
    const at = this.#end;
    const end = at + blocks * blockBytes;
    const { memory } = this.#kernel;
    memory.fill(0, at + bytes, end);
    memory[at + bytes] = 0x80;
    memory.writeUIntLE(bytes * 8, end - 8, 6);
    this.#begins.push(at);
    this.#blocks.push(blocks);
    this.#end = end;
    return memory.subarray(at, at + bytes);
  }

  /** The digests of all messages since the last call, 16 bytes each, in their order. */
  digest(): Buffer {
    const kernel = this.#kernel;
    const blocksLeft = this.#blocksLeft;
    const digests = new Uint32Array(this.#begins.length * digestWords);
    // The longest first, so that none of them is left alone at the end.
    const waiting = Array.from(this.#blocks.keys()).sort(
      (one, other) => (this.#blocks[one] as number) - (this.#blocks[other] as number),
    );
    for (let lane = 0; lane < lanes; lane++) this.#begin(lane, waiting.pop());
    for (let blocks = this.#next(); blocks > 0; blocks = this.#next()) {
      kernel.digest(blocks);
      for (let lane = 0; lane < lanes; lane++) {
        const left = blocksLeft[lane] as number;
        if (left === 0) continue;
        blocksLeft[lane] = left - blocks;
        if (left > blocks) continue;
        kernel.take(lane, digests, (this.#running[lane] as number) * digestWords);
        this.#begin(lane, waiting.pop());
      }
    }
    this.#clear();
    return Buffer.from(digests.buffer);
  }

  #clear(): void {
    this.#begins = [];
    this.#blocks = [];
    this.#end = messagesAt;
  }

  #begin(lane: number, message: number | undefined): void {
    this.#blocksLeft[lane] = message === undefined ? 0 : (this.#blocks[message] as number);
    if (message === undefined) return;
    this.#running[lane] = message;
    this.#kernel.begin(lane, this.#begins[message] as number);
  }

  /** Blocks until the first lane has no more; 0 when none has. */
  #next(): number {
    let least = 0;
    for (let lane = 0; lane < lanes; lane++) {
      const left = this.#blocksLeft[lane] as number;
      if (left === 0) this.#kernel.point(lane, messagesAt);
      else if (least === 0 || left < least) least = left;
    }
    return least;
  }
}
