import { Readable } from "node:stream";
import type { BodySource, ObjectDriver } from "../driver.ts";

/** The pieces of a stream, each when it is asked for. */
export class PieceReader {
  readonly #stream: Readable;
  readonly #iterator: AsyncIterator<Buffer>;

  constructor(stream: Readable) {
    this.#stream = stream;
    // A failure is thrown by `next`; one that comes when nobody asks any more is nobody's.
    stream.on("error", () => {});
    this.#iterator = stream[Symbol.asyncIterator]();
  }

  /** `undefined` at the end. */
  async next(): Promise<Buffer | undefined> {
    const { done, value } = await this.#iterator.next();
    return done ? undefined : value;
  }

  destroy(): void {
    this.#stream.destroy();
  }
}

/** A stream that asks for a piece when its reader wants one, and holds no second one. */
export function streamOf(pull: () => Promise<Buffer | undefined>, close: () => void): Readable {
  const stream = new Readable({
    highWaterMark: 1,
    read() {
      pull().then(
        (piece) => stream.push(piece ?? null),
        (error: unknown) => stream.destroy(error instanceof Error ? error : new Error(String(error))),
      );
    },
    destroy(error, done) {
      close();
      done(error);
    },
  });
  return stream;
}

/** The body, opened in another way. */
export function reopened({ sizeBytes }: BodySource, open: BodySource["open"]): BodySource {
  return sizeBytes === undefined ? { open } : { open, sizeBytes };
}

/** A driver that hands everything on, for wrappers to change what they care for. */
export function forward(driver: ObjectDriver): ObjectDriver {
  return {
    name: driver.name,
    capabilities: (call) => driver.capabilities(call),
    put: (key, body, call) => driver.put(key, body, call),
    get: (key, range, call) => driver.get(key, range, call),
    delete: (key, call) => driver.delete(key, call),
    purge: (key, call) => driver.purge(key, call),
    list: (after, call) => driver.list(after, call),
    [Symbol.asyncDispose]: () => driver[Symbol.asyncDispose](),
  };
}
