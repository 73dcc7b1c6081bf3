import { StowageError } from "../errors/index.ts";
import { type Call, follow } from "../runtime/index.ts";
import type { AnalyzedLayer } from "./layer-pool.ts";

/** Reads a layer, and tells what was read of its blob. */
type Read = (onBytes: (bytes: number) => void, call: Call) => Promise<AnalyzedLayer>;

/** A layer that is read before anybody has asked for it. Disposing of it gives up what nobody has taken. */
export class ReadAhead implements AsyncDisposable {
  readonly #stop = new AbortController();
  readonly #analyzed: Promise<AnalyzedLayer>;
  #bytesRead = 0;
  #onBytes = (bytes: number) => {
    this.#bytesRead += bytes;
  };

  constructor(read: Read, call: Call) {
    const signal = AbortSignal.any([call.signal, this.#stop.signal]);
    this.#analyzed = read((bytes) => this.#onBytes(bytes), { ...call, signal });
    // Its failure is for whoever takes it.
    this.#analyzed.catch(() => {});
  }

  /** Goes on with it, as if it began now. Once. */
  async take(onBytes: (bytes: number) => void, call: Call): Promise<AnalyzedLayer> {
    using _following = follow(call.signal, this.#stop);
    onBytes(this.#bytesRead);
    this.#onBytes = onBytes;
    return await this.#analyzed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new StowageError("INPUT_INTERRUPTED", { what: "a layer that nobody asked for" }));
    (await this.#analyzed.catch(() => undefined))?.[Symbol.dispose]();
  }
}
