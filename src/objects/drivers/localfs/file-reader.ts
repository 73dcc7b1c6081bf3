import { Readable } from "node:stream";
import { StowageError } from "../../../errors/index.ts";
import { type Call, throwIfAborted } from "../../../runtime/index.ts";
import type { PhysicalKey } from "../../driver.ts";
import type { OpenFile } from "./file-calls.ts";
import { driverName, fileFailure } from "./file-failure.ts";

/** So many bytes are read in one call. */
export const readBytes = 256 * 1024;

export interface Extent {
  readonly key: PhysicalKey;
  readonly path: string;
  readonly first: number;
  /** The byte after the last one. */
  readonly end: number;
}

/** The bytes of an open file; closes it. A file that has become shorter is a failure, not an early end. */
export function readFile(file: OpenFile, { key, path, first, end }: Extent, call: Call): Readable {
  let position = first;
  const stream = new Readable({
    highWaterMark: readBytes,
    read() {
      next().then(
        (bytes) => stream.push(bytes),
        (error: unknown) =>
          stream.destroy(fileFailure(error, { operation: "get", key, path, isChange: false }) as Error),
      );
    },
    destroy(error, done) {
      call.signal.removeEventListener("abort", stop);
      // A read that is under way keeps its file open until it ends: closing waits for it.
      file.close().then(
        () => done(error),
        () => done(error), // nothing was written, so nothing can be lost
      );
    },
  });
  const next = async () => {
    throwIfAborted(call);
    if (position >= end) return null;
    const bytes = Buffer.allocUnsafe(Math.min(readBytes, end - position));
    const count = await file.read(bytes, position);
    if (count === 0) {
      const reason = `the file ended at ${position} of ${end} bytes: ${path}`;
      throw new StowageError("BACKEND_FAILED", { driver: driverName, operation: "get", key, reason });
    }
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
