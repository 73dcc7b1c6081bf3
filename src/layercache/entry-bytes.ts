import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { messageOf, StowageError } from "../errors/index.ts";
import { type Call, throwIfAborted } from "../runtime/index.ts";
import type { CacheFile } from "./cache-files.ts";
import type { OpenEntry } from "./cache-session.ts";

const chunkBytes = 256 * 1024;

/** An entry from its start to its end; the stream owns it. */
export function entryStream(entry: OpenEntry, size: number, call: Call): Readable {
  let position = 0;
  const stream = new Readable({
    highWaterMark: chunkBytes,
    read() {
      next().then(
        (chunk) => this.push(chunk),
        (error: Error) => this.destroy(error),
      );
    },
    destroy(error, done) {
      call.signal.removeEventListener("abort", stop);
      entry[Symbol.asyncDispose]().then(
        () => done(error),
        (failure: Error) => done(error ?? failure),
      );
    },
  });
  const next = async () => {
    throwIfAborted(call);
    if (position === size) return null;
    const chunk = Buffer.allocUnsafeSlow(Math.min(chunkBytes, size - position));
    const read = await entry.file.read(chunk, position).catch((error: unknown) => {
      throw unreadable(messageOf(error), error);
    });
    if (read === 0) throw unreadable("it ended early");
    position += read;
    return chunk.subarray(0, read);
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

/** Reads a whole entry. Returns what is wrong with it. */
export async function proveEntry(
  file: CacheFile,
  digest: string,
  size: number,
  onBytes: (bytes: number) => void,
  call: Call,
): Promise<string | undefined> {
  const hash = createHash("sha256");
  const chunk = Buffer.allocUnsafeSlow(Math.min(chunkBytes, size));
  for (let position = 0; position < size; ) {
    throwIfAborted(call);
    let read: number;
    try {
      read = await file.read(chunk.subarray(0, Math.min(chunk.length, size - position)), position);
    } catch (error) {
      return `it can't be read: ${messageOf(error)}`;
    }
    if (read === 0) return `it ended after ${position} of ${size} bytes`;
    hash.update(chunk.subarray(0, read));
    position += read;
    onBytes(read);
  }
  return hash.digest("hex") === digest ? undefined : "its bytes have another digest";
}

function unreadable(reason: string, cause?: unknown): StowageError {
  const details = { source: "the layer cache", reason };
  return new StowageError("IMAGE_SOURCE_UNREADABLE", details, cause === undefined ? {} : { cause });
}
