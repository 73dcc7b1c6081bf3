import { StowageError } from "../../../errors/index.ts";
import { type Call, type Clock, throwIfAborted } from "../../../runtime/index.ts";

const MiB = 1024 * 1024;

/** The smallest part that S3 takes, but for the last of an upload. */
const partBytesMin = 5 * MiB;
const partBytesUsual = 6 * MiB;
export const partsMax = 10_000;
export const objectBytesMax = 5 * 1024 ** 4;

/** For all uploads together, while they go on: memory does not grow with the objects, nor with how many there are at once. */
const budgetBytes = 36 * MiB;
/** When nobody has given a buffer back for so long, an upload takes its first one all the same. */
const patienceMs = 10_000;
/** Kept for the next uploads: memory that is given up is not free before it is collected. */
const idleBytesMax = 18 * MiB;

interface Waiting {
  readonly bytes: number;
  readonly enter: () => void;
}

/**
 * The memory of all uploads of one driver. Beyond the budget, an upload waits for the buffers of others, as long as these are given back: they may wait for
 * it, where bodies wait for each other. More buffers than one, to send parts side by side, it has only while there is room.
 */
export class PartBuffers {
  readonly #usualBytes: number;
  readonly #clock: Clock;
  readonly #idle: Buffer[] = [];
  readonly #queue = new Set<Waiting>();
  #usedBytes = 0;
  #timesGiven = 0;

  constructor(clock: Clock, usualBytes: number = partBytesUsual) {
    this.#clock = clock;
    this.#usualBytes = usualBytes;
  }

  /** What is shorter is never sent in parts. */
  get leastBytes(): number {
    return Math.min(this.#usualBytes, partBytesMin);
  }

  /** Bytes of the first parts of a body: larger where its size asks for it. */
  partBytes(sizeBytes: number | undefined): number {
    return Math.max(this.#usualBytes, Math.ceil((sizeBytes ?? 0) / partsMax / MiB) * MiB);
  }

  /** A buffer for sure: as soon as there is room, or when the wait has become too long. */
  async take(bytes: number, call: Call): Promise<Buffer> {
    if (this.#hasRoom(bytes)) this.#usedBytes += bytes;
    else await this.#waitForRoom(bytes, call);
    return this.#bufferOf(bytes);
  }

  tryTake(bytes: number): Buffer | undefined {
    if (!this.#hasRoom(bytes)) return undefined;
    this.#usedBytes += bytes;
    return this.#bufferOf(bytes);
  }

  give(buffer: Buffer): void {
    const idleBytes = this.#idle.reduce((sum, { length }) => sum + length, buffer.length);
    if (buffer.length === this.#usualBytes && idleBytes <= idleBytesMax) this.#idle.push(buffer);
    this.#usedBytes -= buffer.length;
    this.#timesGiven++;
    for (const waiting of this.#queue) {
      if (this.#usedBytes + waiting.bytes > budgetBytes) return;
      this.#enter(waiting);
    }
  }

  #hasRoom(bytes: number): boolean {
    return this.#queue.size === 0 && this.#usedBytes + bytes <= budgetBytes;
  }

  async #waitForRoom(bytes: number, call: Call): Promise<void> {
    const entered = new AbortController();
    const waiting = { bytes, enter: () => entered.abort() };
    this.#queue.add(waiting);
    const signal = AbortSignal.any([call.signal, entered.signal]);
    for (let seen = -1; seen !== this.#timesGiven; ) {
      seen = this.#timesGiven;
      // It is woken when there is room.
      await this.#clock.sleep(patienceMs, { ...call, signal }).catch(() => {});
      if (entered.signal.aborted) return;
      if (call.signal.aborted) this.#queue.delete(waiting);
      throwIfAborted(call);
    }
    this.#enter(waiting);
  }

  #enter(waiting: Waiting): void {
    this.#queue.delete(waiting);
    this.#usedBytes += waiting.bytes;
    waiting.enter();
  }

  #bufferOf(bytes: number): Buffer {
    const at = this.#idle.findIndex(({ length }) => length === bytes);
    if (at >= 0) return this.#idle.splice(at, 1)[0] as Buffer;
    return Buffer.allocUnsafeSlow(bytes);
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
