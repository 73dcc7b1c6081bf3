import { pipeline, type Readable, Transform, type TransformCallback } from "node:stream";
import { type Codec, decode, decoder } from "./codec.ts";
import { Digester, digestOf } from "./digester.ts";
import { headerLength, prefixBytes, trailerBytes } from "./envelope.ts";

/** What was recorded of an object's bytes when they were written. */
export interface Recorded {
  readonly codec: Codec;
  readonly contentDigest: string;
  readonly contentBytes: number;
  readonly storedDigest: string;
  readonly storedBytes: number;
}

/** Bytes that are not those that were written; `actual` says what they are instead. */
export class WrongBytes extends Error {
  readonly actual: string;
  readonly isTooShort: boolean;

  constructor(actual: string, isTooShort = false) {
    super(`wrong bytes: ${actual}`);
    this.actual = actual;
    this.isTooShort = isTooShort;
  }
}

/**
 * The content in `stored` as it passes: out of its envelope, decoded, both digests checked. The stream fails instead of ending when one of the bytes
 * was wrong or missing.
 *
 * @param judge what the stream fails with when bytes are wrong
 */
export function verifiedContent(
  stored: Readable,
  recorded: Recorded,
  judge: (wrong: WrongBytes) => Promise<Error>,
): Readable {
  const unwrap = new Unwrap(recorded);
  const decode = decoder(recorded.codec);
  const verify = new Verify(recorded, judge);
  const stages = decode === undefined ? [stored, unwrap, verify] : [stored, unwrap, decode, verify];
  // The last stream carries the failure; its destruction goes up.
  return pipeline(stages, () => {}) as unknown as Transform;
}

/**
 * The same of stored bytes that are in memory as a whole.
 * @throws WrongBytes
 */
export async function verifiedBytes(stored: Buffer, recorded: Recorded): Promise<Buffer> {
  const { codec, contentBytes, contentDigest } = recorded;
  const content = await decode(codec, payloadOf(stored, recorded), contentBytes).catch((error: Error) => {
    throw wrongBytesIn(error) ?? error;
  });
  const actual = digestOf(content);
  if (actual !== contentDigest) throw new WrongBytes(actual);
  return content;
}

/**
 * What lies between header and trailer, all of it checked.
 * @throws WrongBytes
 */
export function payloadOf(stored: Buffer, recorded: Recorded): Buffer {
  const payload = unwrapped(stored, recorded);
  const actual = digestOf(stored);
  if (actual !== recorded.storedDigest) throw new WrongBytes(`${actual} stored`);
  return payload;
}

/**
 * The payload of bytes that get another envelope. Where it is the content itself, its own digest is looked at, not that of the envelope that goes.
 * @throws WrongBytes
 */
export function payloadToKeep(stored: Buffer, recorded: Recorded): Buffer {
  if (recorded.codec !== "none") return payloadOf(stored, recorded);
  const content = unwrapped(stored, recorded);
  const actual = digestOf(content);
  if (actual !== recorded.contentDigest) throw new WrongBytes(actual);
  return content;
}

function unwrapped(stored: Buffer, { storedBytes }: Recorded): Buffer {
  if (stored.length > storedBytes) throw new WrongBytes(`more than ${storedBytes} stored bytes`);
  if (stored.length < storedBytes) throw new WrongBytes(`${stored.length} of ${storedBytes} stored bytes`, true);
  const length = headerLength(stored);
  if (length === undefined) throw new WrongBytes("no header");
  return stored.subarray(prefixBytes + length, stored.length - trailerBytes);
}

/** Passes the payload on, digests everything. */
export class Unwrap extends Transform {
  readonly #recorded: Recorded;
  readonly #digester = new Digester();
  #head: Buffer | undefined = Buffer.alloc(0);
  #payloadStart = 0;

  constructor(recorded: Recorded) {
    super();
    this.#recorded = recorded;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    const start = this.#digester.bytes;
    this.#digester.update(chunk);
    if (this.#digester.bytes > this.#recorded.storedBytes) {
      done(new WrongBytes(`more than ${this.#recorded.storedBytes} stored bytes`));
      return;
    }
    if (this.#head === undefined) {
      this.#pass(chunk, start);
      done();
      return;
    }
    const head = this.#head.length === 0 ? chunk : Buffer.concat([this.#head, chunk]);
    const length = head.length < prefixBytes ? 0 : headerLength(head);
    if (length === undefined) {
      done(new WrongBytes("no header"));
      return;
    }
    if (head.length < prefixBytes + length || head.length < prefixBytes) {
      this.#head = head;
      done();
      return;
    }
    this.#head = undefined;
    this.#payloadStart = prefixBytes + length;
    this.#pass(head, 0);
    done();
  }

  override _flush(done: TransformCallback): void {
    const { storedBytes, storedDigest } = this.#recorded;
    if (this.#digester.bytes < storedBytes) {
      done(new WrongBytes(`${this.#digester.bytes} of ${storedBytes} stored bytes`, true));
      return;
    }
    const actual = this.#digester.digest();
    done(actual === storedDigest ? null : new WrongBytes(`${actual} stored`));
  }

  /** The part of `bytes`, which begin at `start`, that is payload. */
  #pass(bytes: Buffer, start: number): void {
    const end = this.#recorded.storedBytes - trailerBytes - start;
    const payload = bytes.subarray(Math.max(0, this.#payloadStart - start), Math.max(0, end));
    if (payload.length > 0) this.push(payload);
  }
}

class Verify extends Transform {
  readonly #recorded: Recorded;
  readonly #judge: (wrong: WrongBytes) => Promise<Error>;
  readonly #digester = new Digester();

  constructor(recorded: Recorded, judge: (wrong: WrongBytes) => Promise<Error>) {
    super();
    this.#recorded = recorded;
    this.#judge = judge;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#digester.update(chunk);
    const { contentBytes } = this.#recorded;
    if (this.#digester.bytes > contentBytes) done(new WrongBytes(`more than ${contentBytes} bytes`));
    else done(null, chunk);
  }

  override _flush(done: TransformCallback): void {
    const actual = this.#digester.digest();
    done(actual === this.#recorded.contentDigest ? null : new WrongBytes(actual));
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const wrong = wrongBytesIn(error);
    if (wrong === undefined) done(error);
    else this.#judge(wrong).then(done, done);
  }
}

/** A decoder that fails has met wrong bytes. */
function wrongBytesIn(error: (Error & { readonly code?: unknown }) | null): WrongBytes | undefined {
  if (error instanceof WrongBytes) return error;
  if (typeof error?.code === "string" && /^(Z_|ZSTD_|ERR_ZLIB)/.test(error.code)) {
    return new WrongBytes(`not decodable (${error.code})`);
  }
  return undefined;
}
