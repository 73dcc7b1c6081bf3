import { Readable } from "node:stream";
import { StowageError } from "../../../errors/index.ts";
import { type Call, throwIfAborted } from "../../../runtime/index.ts";
import type { PhysicalKey } from "../../driver.ts";
import type { OpenFile } from "./file-calls.ts";
import { driverName, fileFailure } from "./file-failure.ts";

/** So many bytes of a long file are read in one call. */
export const readBytes = 256 * 1024;

export interface Extent {
  readonly key: PhysicalKey;
  readonly path: string;
  readonly first: number;
  /** The byte after the last one. */
  readonly end: number;
}

/** A short extent, in one call if the file system gives all of it. A file that has become shorter is a failure. */
export async function readShort(file: OpenFile, { key, path, first, end }: Extent): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(Math.max(0, end - first));
  let count = 0;
  while (count < bytes.length) {
    const more = await file.read(bytes.subarray(count), first + count);
    if (more === 0) throw endedAt(first + count, { key, path, end });
    count += more;
  }
  return bytes;
}

/** The bytes of an open file; closes it. A file that has become shorter is a failure, not an early end. */
export function readFile(file: OpenFile, { key, path, first, end }: Extent, call: Call): Readable {
  let position = first;
  let reading: Promise<void> = Promise.resolve();
  const stream = new Readable({
    highWaterMark: readBytes,
    read() {
      reading = next().then(
        (bytes) => {
          stream.push(bytes);
        },
        (error: unknown) => {
          stream.destroy(fileFailure(error, { operation: "get", key, path, isChange: false }) as Error);
        },
      );
    },
    destroy(error, done) {
      call.signal.removeEventListener("abort", stop);
      const closed = () => done(error); // also where it fails: nothing was written, so nothing can be lost
      reading.then(() => file.close()).then(closed, closed);
    },
  });
  const next = async () => {
    throwIfAborted(call);
    if (position >= end) return null;
    const bytes = Buffer.allocUnsafe(Math.min(readBytes, end - position));
    const count = await file.read(bytes, position);
    if (count === 0) throw endedAt(position, { key, path, end });
    position += count;
    return bytes.subarray(0, count);
  };
  const stop = () => {
    try {
      throwIfAborted(call);
    } catch (error) {
      stream.destroy(error as Error);
    }
  };
  call.signal.addEventListener("abort", stop, { once: true });
  if (call.signal.aborted) stop();
  return stream;
}

function endedAt(position: number, { key, path, end }: Omit<Extent, "first">): StowageError {
  const reason = `the file ended at ${position} of ${end} bytes: ${path}`;
  return new StowageError("BACKEND_FAILED", { driver: driverName, operation: "get", key, reason });
}
