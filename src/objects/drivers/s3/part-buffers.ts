import { StowageError } from "../../../errors/index.ts";

const MiB = 1024 * 1024;

/** The smallest part that S3 takes, but for the last of an upload. */
const partBytesMin = 5 * MiB;
const partBytesUsual = 8 * MiB;
export const partsMax = 10_000;
export const objectBytesMax = 5 * 1024 ** 4;

/** Beside one buffer for each upload, as many as fit in here: memory does not grow with the objects. */
const budgetBytes = 32 * MiB;
/** Kept for the next uploads: memory that is given up is not free before it is collected. */
const idleBytesMax = 16 * MiB;

/**
 * The memory of all uploads of one driver. Each has one buffer for sure, so that bodies that wait for each other come to an end; more, to send parts
 * side by side, only while there is room.
 */
export class PartBuffers {
  readonly #usualBytes: number;
  readonly #idle: Buffer[] = [];
  #usedBytes = 0;

  constructor(usualBytes: number = partBytesUsual) {
    this.#usualBytes = usualBytes;
  }

  /** What is shorter is never sent in parts. */
  get leastBytes(): number {
    return Math.min(this.#usualBytes, partBytesMin);
  }

  /** Bytes of the first parts of a body: smaller where many uploads are at work, larger where the size asks for it. */
  partBytes(sizeBytes: number | undefined): number {
    const isCrowded = this.#usedBytes + this.#usualBytes > budgetBytes;
    const isAtHand = this.#idle.some(({ length }) => length === this.#usualBytes);
    const usual = isCrowded && !isAtHand ? partBytesMin : this.#usualBytes;
    return Math.max(usual, Math.ceil((sizeBytes ?? 0) / partsMax / MiB) * MiB);
  }

  take(bytes: number): Buffer {
    this.#usedBytes += bytes;
    const at = this.#idle.findIndex(({ length }) => length === bytes);
    if (at >= 0) return this.#idle.splice(at, 1)[0] as Buffer;
    return Buffer.allocUnsafeSlow(bytes);
  }

  tryTake(bytes: number): Buffer | undefined {
    return this.#usedBytes + bytes > budgetBytes ? undefined : this.take(bytes);
  }

  give(buffer: Buffer): void {
    this.#usedBytes -= buffer.length;
    if (buffer.length !== this.#usualBytes && buffer.length !== partBytesMin) return;
    const idleBytes = this.#idle.reduce((sum, { length }) => sum + length, buffer.length);
    if (idleBytes <= idleBytesMax) this.#idle.push(buffer);
  }
}

/** Of a body of unknown size, parts double after each thousand: 10,000 of them then hold what an object may have. */
export function partBytesAt(partNumber: number, firstBytes: number, sizeBytes: number | undefined): number {
  return sizeBytes === undefined ? firstBytes * 2 ** Math.floor((partNumber - 1) / 1000) : firstBytes;
}

/** @throws StowageError `LIMIT_EXCEEDED` */
export function checkObjectSize(sizeBytes: number | undefined): void {
  if (sizeBytes === undefined || sizeBytes <= objectBytesMax) return;
  const where = "an object of S3";
  throw new StowageError("LIMIT_EXCEEDED", { limit: "objectBytesMax", max: objectBytesMax, found: sizeBytes, where });
}
