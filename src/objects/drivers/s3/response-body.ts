import { Readable } from "node:stream";
import type { StowageError } from "../../../errors/index.ts";

/** Which bytes of an answer are wanted. */
export interface Extract {
  /** Bytes before the wanted ones. */
  readonly skipBytes: number;
  readonly takeBytes: number;
  /** All bytes of the answer. */
  readonly totalBytes: number;
}

/**
 * The wanted bytes of an answer, all of them or a failure: an answer that ends early never looks like one that is complete. Destroying it frees
 * the socket; reading it to its end gives the socket back.
 */
export class ResponseBody extends Readable {
  readonly #source: Readable;
  readonly #failure: (error: unknown) => StowageError;
  #skipBytes: number;
  #leftBytes: number;
  #hasExcess: boolean;

  constructor(
    source: Readable,
    extract: Extract,
    failure: (error: unknown) => StowageError,
    interruption: { readonly signal: AbortSignal; readonly error: () => unknown },
  ) {
    super();
    this.#source = source;
    this.#failure = failure;
    this.#skipBytes = extract.skipBytes;
    this.#leftBytes = extract.takeBytes;
    this.#hasExcess = extract.skipBytes + extract.takeBytes < extract.totalBytes;
    source.on("data", (chunk: Buffer) => this.#take(chunk));
    source.on("end", () => this.#finish());
    source.on("error", (error) => this.destroy(this.#failure(error)));
    source.on("close", () => this.#finish());
    source.pause();
    const interrupt = () => this.destroy(interruption.error() as Error);
    interruption.signal.addEventListener("abort", interrupt, { once: true });
    this.once("close", () => interruption.signal.removeEventListener("abort", interrupt));
    if (interruption.signal.aborted) interrupt();
  }

  override _read(): void {
    this.#source.resume();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#source.destroy();
    done(error);
  }

  #take(chunk: Buffer): void {
    const skipped = Math.min(this.#skipBytes, chunk.length);
    this.#skipBytes -= skipped;
    const wanted = chunk.subarray(skipped, skipped + this.#leftBytes);
    this.#leftBytes -= wanted.length;
    if (wanted.length > 0 && !this.push(wanted)) this.#source.pause();
    if (this.#leftBytes === 0 && this.#hasExcess) this.#finish();
  }

  #finish(): void {
    if (this.destroyed || this.readableEnded) return;
    if (this.#leftBytes > 0) this.destroy(this.#failure(new Error(`the answer ended ${this.#leftBytes} bytes early`)));
    else this.push(null);
    // After the first `null` a second one does nothing; what is not wanted is not waited for.
    if (this.#hasExcess) this.#source.destroy();
    this.#hasExcess = false;
  }
}
