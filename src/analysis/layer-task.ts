import type { MessagePort } from "node:worker_threads";
import type { Limits } from "../config/index.ts";
import type { SerializedError } from "../errors/index.ts";
import type { ExpectedLayer, LayerAnalysis } from "../layer/index.ts";
import type { LayerFile } from "../oci/index.ts";

/** What a worker thread gets to analyse a layer. Descriptors are valid in all threads of a process. */
export interface LayerTask {
  readonly expected: ExpectedLayer;
  readonly fingerprint: string;
  readonly limits: Limits;
  readonly scratch: number;
  readonly output: number;
  /** The file that the blob lies in; without one its bytes come through `port`. */
  readonly file: BlobFile | undefined;
  /** See {@link ToWorker}, {@link FromWorker}. */
  readonly port: MessagePort;
}

export type BlobFile = Pick<LayerFile, "description" | "descriptor" | "start" | "size">;

/** Errors do not survive the border between threads as they are. */
export type LayerTaskResult =
  | { readonly analysis: LayerAnalysis; readonly fileBytesRead: number }
  | { readonly error: SerializedError };

/** `open` asks for the blob from its start; each `next` for one more chunk. `read` tells of bytes that the worker has read from the file itself. */
export type FromWorker = "open" | "next" | "close" | { readonly read: number };

export type ToWorker = { readonly chunk: ArrayBuffer } | { readonly end: true } | { readonly error: SerializedError };

export const chunkBytesMax = 512 * 1024;

/** A worker that reads a file tells of so many bytes at once: each message wakes the main thread, and a display is drawn a few times a second. */
export const readBytesTold = 4 * 1024 * 1024;

/** Chunks on their way to a worker at once. */
export const chunksAhead = 4;
