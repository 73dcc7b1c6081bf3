/** What is wrong with a zstd stream; it carries a code as the decoder's own errors do. */
class ZstdFault extends Error {
  readonly code = "ZSTD_FRAMING";
}

const frameMagic = 0xfd2fb528;

/**
 * Cuts a zstd stream into its frames, skippable ones dropped, by walking block headers without decoding.
 * @see RFC 8878, sections 3.1.1 and 3.1.2
 */
export class ZstdFrames {
  readonly #chunks: AsyncIterator<Buffer>;
  #buffer: Buffer = Buffer.alloc(0);
  #isEnded = false;

  constructor(chunks: AsyncIterator<Buffer>) {
    this.#chunks = chunks;
  }

  /** Moves to the next frame that holds data; false at the end of the stream. */
  async next(): Promise<boolean> {
    for (;;) {
      if ((await this.#ensure(4)) === 0) return false;
      const magic = this.#peek(4, 4).readUInt32LE(0);
      if (magic === frameMagic) return true;
      if (magic < 0x184d2a50 || magic > 0x184d2a5f) throw new ZstdFault("bytes that are no zstd frame follow a frame");
      await this.#ensure(8);
      let left = 8 + this.#peek(8, 8).readUInt32LE(4);
      while (left > 0) {
        if ((await this.#ensure(1)) === 0) throw new ZstdFault("a skippable frame is cut off");
        left -= this.#take(Math.min(left, this.#buffer.length)).length;
      }
    }
  }

  /** The bytes of the present frame. */
  async *content(): AsyncGenerator<Buffer> {
    await this.#ensure(6);
    const descriptor = this.#peek(5, 5)[4] as number;
    const isSingleSegment = (descriptor & 0x20) !== 0;
    const hasChecksum = (descriptor & 0x04) !== 0;
    const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] as number;
    const sizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] as number;
    const headerBytes = 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes + sizeBytes;
    yield* this.#pass(headerBytes);
    for (;;) {
      await this.#ensure(3);
      const header = this.#peek(3, 3).readUIntLE(0, 3);
      const type = (header >> 1) & 3;
      if (type === 3) throw new ZstdFault("a block has a reserved type");
      // An RLE block stores one byte, however long it becomes.
      yield* this.#pass(3 + (type === 1 ? 1 : header >>> 3));
      if (header & 1) break;
    }
    if (hasChecksum) yield* this.#pass(4);
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }

  async *#pass(count: number): AsyncGenerator<Buffer> {
    let left = count;
    while (left > 0) {
      if ((await this.#ensure(1)) === 0) throw new ZstdFault("a frame is cut off");
      const bytes = this.#take(Math.min(left, this.#buffer.length));
      left -= bytes.length;
      yield bytes;
    }
  }

  /** Buffers `count` bytes if there are so many; returns how many there are. */
  async #ensure(count: number): Promise<number> {
    while (this.#buffer.length < count && !this.#isEnded) {
      const { value, done } = await this.#chunks.next();
      if (done) this.#isEnded = true;
      else this.#buffer = this.#buffer.length === 0 ? value : Buffer.concat([this.#buffer, value]);
    }
    return this.#buffer.length;
  }

  #peek(count: number, needed: number): Buffer {
    if (this.#buffer.length < needed) throw new ZstdFault("a frame is cut off");
    return this.#buffer.subarray(0, count);
  }

  #take(count: number): Buffer {
    const bytes = this.#buffer.subarray(0, count);
    this.#buffer = this.#buffer.subarray(count);
    return bytes;
  }
}
