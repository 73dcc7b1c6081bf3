import type { MessagePort } from "node:worker_threads";
import type { Limits } from "../config/index.ts";
import type { SerializedError } from "../errors/index.ts";
import type { ExpectedLayer, LayerAnalysis } from "../layer/index.ts";

/** What a worker thread gets to analyse a layer. Descriptors are valid in all threads of a process. */
export interface LayerTask {
  readonly expected: ExpectedLayer;
  readonly fingerprint: string;
  readonly limits: Limits;
  readonly scratch: number;
  readonly output: number;
  /** Where the blob's bytes come from: see {@link ToWorker}, {@link FromWorker}. */
  readonly port: MessagePort;
}

/** Errors do not survive the border between threads as they are. */
export type LayerTaskResult = { readonly analysis: LayerAnalysis } | { readonly error: SerializedError };

/** `open` asks for the blob from its start; each `next` for one more chunk. */
export type FromWorker = "open" | "next" | "close";

export type ToWorker = { readonly chunk: ArrayBuffer } | { readonly end: true } | { readonly error: SerializedError };

/** Chunks on their way to a worker at once. */
export const chunksAhead = 4;
