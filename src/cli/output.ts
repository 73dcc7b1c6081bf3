import type { Writable } from "node:stream";
import { maskSecrets } from "../config/index.ts";
import { messageOf, StowageError } from "../errors/index.ts";

/** Thrown by {@link Output.write} once the reader of a pipe has gone (`stowage … | head`). Nothing is wrong: the command ends quietly. */
export class OutputClosed extends Error {
  override readonly name = "OutputClosed";
}

/** A stream that may be a terminal. */
export type OutputStream = Writable & { readonly isTTY?: boolean; readonly columns?: number; readonly rows?: number };

/** How much is gathered before it is handed on: large enough to make millions of small writes cheap. */
const BATCH_CHARACTERS = 64 * 1024;

/**
 * Standard output: batched, with back-pressure, secrets masked. Each `write` is masked as part of its batch and never cut, so a secret inside one written
 * text is found.
 */
export class Output {
  readonly #stream: OutputStream;
  #batch = "";

  constructor(stream: OutputStream) {
    this.#stream = stream;
    // The callback of write() reports the error; without a listener the event would end the process.
    stream.on("error", () => {});
  }

  /** Columns of the terminal; `undefined` when the output is read by a program. */
  get columns(): number | undefined {
    return this.#stream.isTTY ? this.#stream.columns || 80 : undefined;
  }

  /**
   * Takes `text`; resolves when more may be written.
   * @throws OutputClosed
   * @throws StowageError `INPUT_OUTPUT_FAILED`
   */
  async write(text: string): Promise<void> {
    this.#batch += text;
    if (this.#batch.length >= BATCH_CHARACTERS) await this.flush();
  }

  /** Hands on what was gathered. */
  async flush(): Promise<void> {
    const text = maskSecrets(this.#batch);
    this.#batch = "";
    if (text === "") return;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#stream.write(text, (error) => (error ? reject(error) : resolve()));
      });
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EPIPE" || code === "ERR_STREAM_DESTROYED") throw new OutputClosed();
      throw new StowageError("INPUT_OUTPUT_FAILED", { reason: messageOf(error) }, { cause: error });
    }
  }
}
