import { createHash } from "node:crypto";
import { Transform, type TransformCallback } from "node:stream";
import type { Attempt } from "./failure.ts";
import { failed } from "./failure.ts";

/**
 * The pieces of a body that are not empty. The last one is held back until the end has been seen: a body that fails, or that is longer than was
 * announced, has then not been sent whole.
 */
export async function* checkedPieces(
  body: AsyncIterable<Buffer>,
  announced: number | undefined,
  attempt: Attempt,
): AsyncGenerator<Buffer> {
  let bytes = 0;
  let held: Buffer | undefined;
  const mismatch = () => failed(attempt, `the body has ${bytes} bytes or more, ${announced} were announced`);
  for await (const piece of body) {
    if (piece.length === 0) continue;
    bytes += piece.length;
    if (announced !== undefined && bytes > announced) throw mismatch();
    if (held !== undefined) yield held;
    held = piece;
  }
  if (announced !== undefined && bytes !== announced) throw mismatch();
  if (held !== undefined) yield held;
}

/** Pieces that can be taken a part at a time. */
export class PieceReader {
  readonly #pieces: AsyncIterator<Buffer>;
  #next: Buffer | undefined;
  /** Why the pieces ended before their end. */
  failure: unknown;

  constructor(pieces: AsyncIterable<Buffer>) {
    this.#pieces = pieces[Symbol.asyncIterator]();
  }

  async isAtEnd(): Promise<boolean> {
    if (this.#next === undefined) {
      try {
        const { done, value } = await this.#pieces.next();
        if (!done) this.#next = value;
      } catch (error) {
        this.failure ??= error;
        throw error;
      }
    }
    return this.#next === undefined;
  }

  /** The next bytes, at most so many; fewer only at the end. */
  async *take(bytesMax: number): AsyncGenerator<Buffer> {
    let left = bytesMax;
    while (left > 0 && !(await this.isAtEnd())) {
      const piece = this.#next as Buffer;
      this.#next = piece.length > left ? piece.subarray(left) : undefined;
      const taken = piece.subarray(0, left);
      left -= taken.length;
      yield taken;
    }
  }
}

/** Pieces on their way to the server, with what the server must say of them. */
export class Upload implements AsyncIterable<Buffer> {
  readonly #pieces: AsyncIterable<Buffer>;
  readonly #hash = createHash("md5");
  #md5: string | undefined;
  sizeBytes = 0;
  /** All has been handed over: whatever comes of it, the server may have stored it. */
  isHandedOver = false;

  constructor(pieces: AsyncIterable<Buffer>) {
    this.#pieces = pieces;
  }

  get md5(): string {
    this.#md5 ??= this.#hash.digest("hex");
    return this.#md5;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    for await (const piece of this.#pieces) {
      this.#hash.update(piece);
      this.sizeBytes += piece.length;
      yield piece;
    }
    this.isHandedOver = true;
  }
}

export function md5Of(bytes: Buffer | string): string {
  return createHash("md5").update(bytes).digest("hex");
}

/** A body on its way to a reader, who gets all announced bytes or a failure that says what it means. */
export class Download extends Transform {
  readonly #expected: number | undefined;
  readonly #attempt: Attempt;
  readonly #explain: (error: Error) => Promise<Error>;
  #bytes = 0;

  /** @param explain what a failure of the connection means */
  constructor(expected: number | undefined, attempt: Attempt, explain: (error: Error) => Promise<Error>) {
    super();
    this.#expected = expected;
    this.#attempt = attempt;
    this.#explain = explain;
  }

  override _transform(piece: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#bytes += piece.length;
    done(null, piece);
  }

  override _flush(done: TransformCallback): void {
    const expected = this.#expected ?? this.#bytes;
    if (this.#bytes === expected) done();
    else done(failed(this.#attempt, `${this.#bytes} bytes came, ${expected} were announced`));
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (error === null) done(null);
    else this.#explain(error).then(done, done);
  }
}

/** `Content-Length`, if there is a valid one. */
export function contentLength(headers: Readonly<Record<string, string | string[] | undefined>>): number | undefined {
  const value = headers["content-length"];
  return typeof value === "string" && /^\d{1,15}$/.test(value) ? Number(value) : undefined;
}
