import type { FileHandle } from "node:fs/promises";
import { Readable } from "node:stream";
import { messageOf, StowageError } from "../errors/index.ts";
import { type Call, throwIfAborted } from "../runtime/index.ts";

/** A file that was opened: its size, and its bytes. The stream owns whatever is open: end it or destroy it. */
export interface OpenFile {
  readonly size: number;
  readonly body: Readable;
}

/** Where the bytes of a file lie: in an open file, which disposing closes if nobody else uses it. */
export interface OpenRange extends AsyncDisposable {
  readonly descriptor: number;
  readonly start: number;
  readonly size: number;
}

/** Regular files by their path, in a directory or in an archive. Paths are relative, with `/`, without `.` and `..`. */
export interface SourceFiles extends AsyncDisposable {
  /** For messages. */
  readonly description: string;
  /**
   * Opens a file; `undefined` if there is none.
   * @throws StowageError `IMAGE_SOURCE_UNREADABLE` if something else than a regular file is there
   */
  open(path: string, call: Call): Promise<OpenFile | undefined>;
  /** The same, for who reads the bytes himself. */
  openRange(path: string, call: Call): Promise<OpenRange | undefined>;
  /** Size of the file; `undefined` if there is none. */
  size(path: string, call: Call): Promise<number | undefined>;
}

/**
 * The whole content of a small file; `undefined` if there is none.
 * @throws StowageError `LIMIT_EXCEEDED`
 */
export async function readSmallFile(
  files: SourceFiles,
  path: string,
  bytesMax: number,
  call: Call,
): Promise<Buffer | undefined> {
  const file = await files.open(path, call);
  if (file === undefined) return undefined;
  if (file.size > bytesMax) {
    file.body.destroy();
    throw new StowageError("LIMIT_EXCEEDED", {
      limit: "manifestBytesMax",
      max: bytesMax,
      found: file.size,
      where: `${path} in ${files.description}`,
    });
  }
  const chunks: Buffer[] = [];
  for await (const chunk of file.body) {
    throwIfAborted(call);
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks);
}

const CHUNK_BYTES = 256 * 1024;

/**
 * A stream of `length` bytes from `start` of an open file. Unlike `createReadStream` it shares the handle with any number of others.
 * @param onClose called once when the stream is over or was destroyed
 */
export function rangeStream(
  handle: FileHandle,
  start: number,
  length: number,
  description: string,
  call: Call,
  onClose?: () => Promise<void>,
): Readable {
  let position = start;
  const end = start + length;
  const stream = new Readable({
    highWaterMark: CHUNK_BYTES,
    read() {
      if (position >= end) {
        this.push(null);
        return;
      }
      const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, end - position));
      handle.read(chunk, 0, chunk.length, position).then(
        ({ bytesRead }) => {
          if (bytesRead === 0) {
            this.destroy(unreadable(description, "it ended early"));
            return;
          }
          position += bytesRead;
          this.push(bytesRead === chunk.length ? chunk : chunk.subarray(0, bytesRead));
        },
        (error: unknown) => {
          this.destroy(unreadable(description, messageOf(error), error));
        },
      );
    },
    destroy(error, done) {
      call.signal.removeEventListener("abort", abort);
      if (onClose === undefined) done(error);
      else onClose().then(() => done(error), done);
    },
  });
  const abort = () => {
    try {
      throwIfAborted(call);
    } catch (error) {
      stream.destroy(error as Error);
    }
  };
  call.signal.addEventListener("abort", abort, { once: true });
  if (call.signal.aborted) abort();
  return stream;
}

export function unreadable(source: string, reason: string, cause?: unknown, hint?: string): StowageError {
  return new StowageError(
    "IMAGE_SOURCE_UNREADABLE",
    { source, reason },
    { ...(cause === undefined ? {} : { cause }), ...(hint === undefined ? {} : { hint }) },
  );
}
