/** Writes integers and byte strings into a growing buffer. */
export class ByteWriter {
  #buffer = Buffer.allocUnsafe(64 * 1024);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  byte(value: number): void {
    this.#reserve(1);
    this.#buffer[this.#length++] = value;
  }

  /** Unsigned LEB128, up to 2⁵³. */
  varint(value: number): void {
    this.#reserve(8);
    let rest = value;
    while (rest >= 0x80) {
      this.#buffer[this.#length++] = (rest % 0x80) | 0x80;
      rest = rest < 0x80000000 ? rest >>> 7 : Math.floor(rest / 0x80);
    }
    this.#buffer[this.#length++] = rest;
  }

  /** Zig-zag, so that small negative numbers stay short. */
  signed(value: number): void {
    this.varint(value < 0 ? -value * 2 - 1 : value * 2);
  }

  /** Latin-1 characters from `start`, without their length. */
  raw(text: string, start = 0): void {
    const piece = start === 0 ? text : text.slice(start);
    this.#reserve(piece.length);
    this.#length += this.#buffer.write(piece, this.#length, "latin1");
  }

  /** Length, then latin-1 characters. */
  text(text: string): void {
    this.varint(text.length);
    this.raw(text);
  }

  /** Length, then the bytes. */
  bytes(bytes: Buffer): void {
    this.varint(bytes.length);
    this.#reserve(bytes.length);
    this.#length += bytes.copy(this.#buffer, this.#length);
  }

  /** The bytes written so far, valid until the next write; starts over. */
  take(): Buffer {
    const taken = this.#buffer.subarray(0, this.#length);
    this.#length = 0;
    return taken;
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + more));
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#buffer = grown;
  }
}

/** Reads what {@link ByteWriter} wrote. Running past the end is a RangeError. */
export class ByteReader {
  readonly #buffer: Buffer;
  #at: number;

  constructor(buffer: Buffer, at = 0) {
    this.#buffer = buffer;
    this.#at = at;
  }

  get position(): number {
    return this.#at;
  }

  get remaining(): number {
    return this.#buffer.length - this.#at;
  }

  byte(): number {
    const value = this.#buffer[this.#at++];
    if (value === undefined) throw new RangeError("the record ends early");
    return value;
  }

  varint(): number {
    let value = 0;
    let factor = 1;
    for (;;) {
      const byte = this.byte();
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
      factor *= 0x80;
      if (factor > 2 ** 56) throw new RangeError("an integer is too long");
    }
  }

  signed(): number {
    const value = this.varint();
    return value % 2 === 1 ? -(value + 1) / 2 : value / 2;
  }

  raw(length: number): string {
    if (length > this.remaining) throw new RangeError("the record ends early");
    this.#at += length;
    return this.#buffer.toString("latin1", this.#at - length, this.#at);
  }

  text(): string {
    return this.raw(this.varint());
  }
}

/** Bytes that come in pieces and are read in other ones, in a buffer that is used again. */
export class ByteQueue {
  #buffer: Buffer = Buffer.allocUnsafeSlow(0);
  #start = 0;
  #end = 0;

  get length(): number {
    return this.#end - this.#start;
  }

  /** Takes a copy. */
  add(bytes: Buffer): void {
    const length = this.length + bytes.length;
    if (this.#end + bytes.length > this.#buffer.length) {
      const isEnough = length <= this.#buffer.length;
      const target = isEnough ? this.#buffer : Buffer.allocUnsafeSlow(Math.max(2 * this.#buffer.length, length));
      this.#buffer.copy(target, 0, this.#start, this.#end);
      if (!isEnough) freeBytes(this.#buffer);
      this.#buffer = target;
      this.#end = this.length;
      this.#start = 0;
    }
    this.#end += bytes.copy(this.#buffer, this.#end);
  }

  /** The next `count` bytes, of which there must be so many; valid until more are added. */
  peek(count: number): Buffer {
    return this.#buffer.subarray(this.#start, this.#start + count);
  }

  /** As {@link peek}; they are read. */
  take(count: number): Buffer {
    const taken = this.peek(count);
    this.#start += count;
    return taken;
  }
}

/**
 * Frees memory at once, if it was allocated as a whole of `allocatedBytes`: all that refers to it is empty from then on. Left to the collector, large
 * buffers pile up, for it runs as small objects come. Not `freeAtOnce` of `runtime`, which brings the log along: threads that analyse layers do without.
 */
export function freeBytes({ buffer, length }: Buffer, allocatedBytes = length): void {
  if (buffer.byteLength === allocatedBytes && allocatedBytes > 0 && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
