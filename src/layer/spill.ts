import { randomBytes } from "node:crypto";
import { closeSync, constants, openSync, read, readSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { StowageError, temporaryFailure } from "../errors/index.ts";
import { freeBytes } from "./bytes.ts";

/**
 * Temporary bytes outside memory: a file without a name. It is unlinked as soon as it is open, so that nothing is left whatever ends the
 * process, and its short-lived name is random: no name from an image ever reaches the file system.
 * @throws StowageError `CONFIG_TEMPORARY_UNUSABLE`
 */
export function openSpill(directory: string): number {
  const path = join(directory, `stowage-${randomBytes(12).toString("hex")}`);
  try {
    const descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    unlinkSync(path);
    return descriptor;
  } catch (error) {
    throw temporaryFailure(error, directory);
  }
}

export function closeSpill(descriptor: number): void {
  closeSync(descriptor);
}

/** How large a spill may become, and whose it is. */
export interface SpillLimit {
  readonly layerSpillBytesMax: number;
  readonly layer: string;
}

/** Appends to and reads from an open spill; the descriptor belongs to whoever opened it. */
export class Spill {
  readonly #descriptor: number;
  readonly #limit: SpillLimit | undefined;
  #end = 0;

  constructor(descriptor: number, limit?: SpillLimit) {
    this.#descriptor = descriptor;
    this.#limit = limit;
  }

  get sizeBytes(): number {
    return this.#end;
  }

  /** Offset at which the bytes lie. @throws StowageError `LIMIT_EXCEEDED`, `CONFIG_TEMPORARY_UNUSABLE` */
  append(bytes: Uint8Array): number {
    const offset = this.#end;
    this.#check(offset + bytes.length);
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.#descriptor, bytes, done, bytes.length - done, offset + done);
      }
    } catch (error) {
      throw temporaryFailure(error);
    }
    this.#end += bytes.length;
    return offset;
  }

  #check(found: number): void {
    if (!this.#limit || found <= this.#limit.layerSpillBytesMax) return;
    const { layerSpillBytesMax: max, layer: where } = this.#limit;
    throw new StowageError(
      "LIMIT_EXCEEDED",
      { limit: "layerSpillBytesMax", max, found, where },
      {
        hint: "raise it with --limit layerSpillBytesMax=…, if you trust the image and the temporary directory has the room",
      },
    );
  }

  /** Up to `length` bytes from `offset`; fewer only at the end. */
  read(offset: number, length: number): Buffer {
    const buffer = Buffer.allocUnsafe(Math.max(0, Math.min(length, this.#end - offset)));
    return buffer.subarray(0, this.readInto(buffer, offset));
  }

  /** Fills `buffer` from `offset`, as far as there are bytes; returns how many. */
  readInto(buffer: Buffer, offset: number): number {
    const length = Math.max(0, Math.min(buffer.length, this.#end - offset));
    for (let done = 0; done < length; ) {
      const count = readSync(this.#descriptor, buffer, done, length - done, offset + done);
      if (count === 0) return done;
      done += count;
    }
    return length;
  }

  /** Appends `length` bytes from `offset` to another spill, a piece at a time in `buffer`. */
  copy(offset: number, length: number, to: Spill, buffer: Buffer): void {
    for (let done = 0; done < length; ) {
      const count = this.readInto(buffer.subarray(0, length - done), offset + done);
      if (count === 0) throw new RangeError("a spill is shorter than what was written to it");
      to.append(buffer.subarray(0, count));
      done += count;
    }
  }
}

const pieceBytes = 256 * 1024;

/** The first `sizeBytes` of a spill, in pieces that are valid until the next one is asked for; the descriptor stays open. */
export async function* readSpill(descriptor: number, sizeBytes: number): AsyncGenerator<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(Math.min(pieceBytes, sizeBytes));
  for (let offset = 0; offset < sizeBytes; ) {
    const piece = await readPiece(descriptor, buffer.subarray(0, sizeBytes - offset), offset);
    offset += piece.length;
    yield piece;
  }
  freeBytes(buffer);
}

/** Reads into `buffer`; what of it was filled. */
function readPiece(descriptor: number, buffer: Buffer, offset: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    read(descriptor, buffer, 0, buffer.length, offset, (error, count) => {
      if (error) reject(error);
      else if (count === 0) reject(new Error("a spill is shorter than what was written to it"));
      else resolve(buffer.subarray(0, count));
    });
  });
}

/** The first `sizeBytes` of a spill as a stream; the descriptor stays open. */
export function streamSpill(descriptor: number, sizeBytes: number): Readable {
  let offset = 0;
  return new Readable({
    highWaterMark: 2 * pieceBytes,
    read() {
      const length = Math.min(pieceBytes, sizeBytes - offset);
      if (length <= 0) {
        this.push(null);
        return;
      }
      readPiece(descriptor, Buffer.allocUnsafeSlow(length), offset).then(
        (piece) => {
          offset += piece.length;
          this.push(piece);
        },
        (error: Error) => this.destroy(error),
      );
    },
  });
}
