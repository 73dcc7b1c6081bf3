import { pipeline, type Readable, Transform, type TransformCallback } from "node:stream";
import { type Codec, decode, decoder } from "./codec.ts";
import { Digester, digestOf } from "./digester.ts";
import { formatTrailer, headerLength, isHeaderOf, prefixBytes, trailerBytes } from "./envelope.ts";
import type { ObjectRef } from "./store.ts";

/** What was recorded of an object's bytes when they were written. */
export interface Recorded {
  readonly codec: Codec;
  readonly contentDigest: string;
  readonly contentBytes: number;
  readonly storedDigest: string;
  readonly storedBytes: number;
}

/** The same of bytes at their place: their envelope has to say that they were written for it. */
export interface Identified extends Recorded {
  readonly locationId: number;
  /** The object whose bytes they are, as it was recorded before they were written. */
  readonly writtenFor: ObjectRef;
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
 * The content in `stored` as it passes: out of its envelope, decoded, both digests checked, and whose bytes they are before the first of them. The stream
 * fails instead of ending when one of the bytes was wrong or missing.
 *
 * @param judge what the stream fails with when bytes are wrong
 */
export function verifiedContent(
  stored: Readable,
  recorded: Identified,
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
export async function verifiedBytes(stored: Buffer, recorded: Identified): Promise<Buffer> {
  const { codec, contentBytes, contentDigest } = recorded;
  const content = await decode(codec, payloadOf(stored, recorded), contentBytes).catch((error: Error) => {
    throw wrongBytesIn(error) ?? error;
  });
  const actual = digestOf(content);
  if (actual !== contentDigest) throw new WrongBytes(actual);
  if (content.length !== contentBytes) throw new WrongBytes(`${content.length} bytes instead of ${contentBytes}`);
  return content;
}

/**
 * What lies between header and trailer, all of it checked.
 * @throws WrongBytes
 */
export function payloadOf(stored: Buffer, recorded: Identified): Buffer {
  const parts = unwrapped(stored, recorded);
  const actual = digestOf(stored);
  if (actual !== recorded.storedDigest) throw new WrongBytes(`${actual} stored`);
  return payloadIn(parts, recorded);
}

/**
 * The payload of bytes that get another envelope. Where it is the content itself, its own digest is looked at, not that of the envelope that goes.
 * @throws WrongBytes
 */
export function payloadToKeep(stored: Buffer, recorded: Identified): Buffer {
  if (recorded.codec !== "none") return payloadOf(stored, recorded);
  const parts = unwrapped(stored, recorded);
  const actual = digestOf(parts.payload);
  if (actual !== recorded.contentDigest) throw new WrongBytes(actual);
  return payloadIn(parts, recorded);
}

function payloadIn({ header, payload, trailer }: Unwrapped, recorded: Identified): Buffer {
  const wrong = wrongHeader(header, recorded) ?? wrongTrailer(trailer, payload.length, recorded);
  if (wrong !== undefined) throw wrong;
  return payload;
}

interface Unwrapped {
  readonly header: Buffer;
  readonly payload: Buffer;
  readonly trailer: Buffer;
}

function unwrapped(stored: Buffer, { storedBytes }: Recorded): Unwrapped {
  if (stored.length > storedBytes) throw new WrongBytes(`more than ${storedBytes} stored bytes`);
  if (stored.length < storedBytes) throw new WrongBytes(`${stored.length} of ${storedBytes} stored bytes`, true);
  const length = headerLength(stored);
  if (length === undefined) throw new WrongBytes("no header");
  const start = prefixBytes + length;
  const end = stored.length - trailerBytes;
  return {
    header: stored.subarray(prefixBytes, start),
    payload: stored.subarray(start, end),
    trailer: stored.subarray(end),
  };
}

const shownCharactersMax = 300;

function wrongHeader(header: Buffer, { locationId: location, writtenFor, codec }: Identified): WrongBytes | undefined {
  if (isHeaderOf(header, { location, ...writtenFor, codec })) return undefined;
  // Whatever stands there may be long, and may have in it what the database takes in no text.
  const found = header.toString("utf8", 0, shownCharactersMax).replaceAll("\0", "\ufffd");
  return new WrongBytes(`those of another object, or of another place of it: ${found}`);
}

/** With what is recorded of the content, its length, too, is what it was when the bytes were written. */
function wrongTrailer(
  trailer: Buffer,
  payloadBytes: number,
  { contentDigest, contentBytes }: Recorded,
): WrongBytes | undefined {
  if (trailer.equals(formatTrailer({ contentDigest, contentBytes, payloadBytes }))) return undefined;
  return new WrongBytes("an envelope whose end says another length or digest of the content");
}

/** Passes the payload on, digests everything, and looks whose it is before anything passes. */
export class Unwrap extends Transform {
  readonly #recorded: Identified;
  readonly #digester = new Digester();
  #head: Buffer | undefined = Buffer.alloc(0);
  #payloadStart = 0;
  #trailer: Buffer = Buffer.alloc(0);

  constructor(recorded: Identified) {
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
    const wrong = wrongHeader(head.subarray(prefixBytes, this.#payloadStart), this.#recorded);
    if (wrong === undefined) this.#pass(head, 0);
    done(wrong);
  }

  override _flush(done: TransformCallback): void {
    const { storedBytes, storedDigest } = this.#recorded;
    if (this.#digester.bytes < storedBytes) {
      done(new WrongBytes(`${this.#digester.bytes} of ${storedBytes} stored bytes`, true));
      return;
    }
    const actual = this.#digester.digest();
    const payloadBytes = storedBytes - trailerBytes - this.#payloadStart;
    const isRight = actual === storedDigest;
    done(isRight ? wrongTrailer(this.#trailer, payloadBytes, this.#recorded) : new WrongBytes(`${actual} stored`));
  }

  /** The part of `bytes`, which begin at `start`, that is payload. */
  #pass(bytes: Buffer, start: number): void {
    const end = this.#recorded.storedBytes - trailerBytes - start;
    const payload = bytes.subarray(Math.max(0, this.#payloadStart - start), Math.max(0, end));
    if (payload.length > 0) this.push(payload);
    if (bytes.length > end) this.#trailer = Buffer.concat([this.#trailer, bytes.subarray(Math.max(0, end))]);
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
    const { contentDigest, contentBytes } = this.#recorded;
    const actual = this.#digester.digest();
    if (actual !== contentDigest) done(new WrongBytes(actual));
    else if (this.#digester.bytes === contentBytes) done();
    else done(new WrongBytes(`${this.#digester.bytes} bytes instead of ${contentBytes}`));
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
