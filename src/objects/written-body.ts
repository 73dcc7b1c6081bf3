import { addAbortSignal, pipeline, Readable, Transform, type TransformCallback } from "node:stream";
import type { Compression } from "../config/index.ts";
import type { Call } from "../runtime/index.ts";
import { type Codec, encode, encoder } from "./codec.ts";
import { Digester, digestOf, formatDigest, sha256 } from "./digester.ts";
import type { BodySource } from "./driver.ts";
import { formatTrailer, trailerBytes } from "./envelope.ts";
import { collectInto, shortBytesMax } from "./short-bytes.ts";
import type { ObjectBody } from "./store.ts";
import { type Identified, payloadToKeep, type Recorded, Unwrap } from "./verified-body.ts";

/** What was written: of the content, and of the bytes that are stored for it. */
export type Written = Recorded;

/** A body that is in memory, which is its own. */
export type WholeSource = BodySource & { readonly bytes: Buffer; readonly sha256: Buffer };

interface Enveloped {
  readonly source: WholeSource;
  written(): Written;
}

/** No more than this is held back to see whether a body of unknown size is worth compressing. */
const heldBackBytesMax = 8 * 1024 * 1024;

/**
 * The body in its envelope, encoded as `compression` says, as a source that a driver can open again.
 * `written` tells of the last opening, once its stream has ended.
 */
export function writtenBody(
  body: ObjectBody,
  compression: Compression,
  header: (codec: Codec) => Buffer,
): { readonly source: BodySource; written(): Written } {
  let written: (() => Written) | undefined;
  const open = async (call: Call): Promise<Readable> => {
    written = undefined;
    // A body that has stalled must not outlive its call.
    const opened = addAbortSignal(call.signal, await body.open(call));
    const { codec, content } = await chooseCodec(opened, body, compression);
    const digester = new Digester();
    const count = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        digester.update(chunk);
        done(null, chunk);
      },
    });
    const envelop = new Envelop(header(codec), () => ({
      contentDigest: digester.digest(),
      contentBytes: digester.bytes,
    }));
    written = () => ({ codec, ...envelop.written() });
    const compress = encoder(codec);
    const stages = compress === undefined ? [content, count, envelop] : [content, count, compress, envelop];
    // The last stream carries the failure; its destruction goes up.
    return pipeline(stages, () => {}) as unknown as Transform;
  };
  const codec = knownCodec(body, compression);
  const sizeBytes =
    codec === "none" && body.sizeBytes !== undefined ? header(codec).length + body.sizeBytes + trailerBytes : undefined;
  return { source: sizeBytes === undefined ? { open } : { open, sizeBytes }, written: () => lastOf(written) };
}

/** The same for content that is in memory as a whole: nothing of it needs a stream. */
export async function writtenBytes(
  content: Buffer,
  isCompressed: boolean,
  compression: Compression,
  header: (codec: Codec) => Buffer,
): Promise<Enveloped> {
  const codec = knownCodec({ sizeBytes: content.length, isCompressed }, compression) ?? "none";
  const recorded = { codec, contentDigest: digestOf(content), contentBytes: content.length };
  return enveloped(header(codec), await encode(codec, content), recorded);
}

/** A body that says it is short, read and enveloped; nothing for one that is not, or has another length than it says. */
export async function writtenShort(
  body: ObjectBody,
  compression: Compression,
  header: (codec: Codec) => Buffer,
  call: Call,
): Promise<Enveloped | undefined> {
  const { bytes, sizeBytes, isCompressed = false } = body;
  if (bytes !== undefined) return await writtenBytes(bytes, isCompressed, compression, header);
  if (sizeBytes === undefined || sizeBytes > shortBytesMax) return undefined;
  const codec = knownCodec(body, compression) ?? "none";
  const head = header(codec);
  const room = codec === "none" ? roomFor(head, sizeBytes) : Buffer.allocUnsafeSlow(sizeBytes);
  const content = codec === "none" ? room.subarray(head.length, head.length + sizeBytes) : room;
  // A body that has stalled must not outlive its call.
  if (!(await collectInto(content, addAbortSignal(call.signal, await body.open(call))))) return undefined;
  const recorded = { codec, contentDigest: digestOf(content), contentBytes: sizeBytes };
  return codec === "none" ? closed(room, sizeBytes, recorded) : enveloped(head, await encode(codec, content), recorded);
}

/**
 * What is stored elsewhere already, in another envelope: its payload is passed on as it is, and what was recorded of its content stays true. All of it is
 * checked as it passes.
 */
export function rewrittenBody(
  openStored: (call: Call) => Promise<Readable>,
  recorded: Identified,
  header: Buffer,
  oldHeaderBytes: number,
): { readonly source: BodySource; written(): Written } {
  let written: (() => Written) | undefined;
  const open = async (call: Call): Promise<Readable> => {
    written = undefined;
    const stored = addAbortSignal(call.signal, await openStored(call));
    const envelop = new Envelop(header, () => recorded);
    written = () => ({ codec: recorded.codec, ...envelop.written() });
    return pipeline([stored, new Unwrap(recorded), envelop], () => {}) as unknown as Transform;
  };
  const sizeBytes = recorded.storedBytes - oldHeaderBytes + header.length;
  return { source: { open, sizeBytes }, written: () => lastOf(written) };
}

/**
 * The same of stored bytes that are in memory as a whole.
 * @throws WrongBytes
 */
export function rewrittenBytes(stored: Buffer, recorded: Identified, header: Buffer): Enveloped {
  return enveloped(header, payloadToKeep(stored, recorded), recorded);
}

type ContentRecorded = Pick<Recorded, "codec" | "contentDigest" | "contentBytes">;

function enveloped(header: Buffer, payload: Buffer, recorded: ContentRecorded): Enveloped {
  const bytes = roomFor(header, payload.length);
  payload.copy(bytes, header.length);
  return closed(bytes, payload.length, recorded);
}

/** Memory of its own for an envelope, which begins with the header. */
function roomFor(header: Buffer, payloadBytes: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(header.length + payloadBytes + trailerBytes);
  header.copy(bytes);
  return bytes;
}

/** The envelope, once its payload is there. */
function closed(bytes: Buffer, payloadBytes: number, recorded: ContentRecorded): Enveloped {
  const { codec, contentDigest, contentBytes } = recorded;
  formatTrailer({ contentDigest, contentBytes, payloadBytes }).copy(bytes, bytes.length - trailerBytes);
  const digest = sha256(bytes);
  const written = { codec, contentDigest, contentBytes, storedDigest: formatDigest(digest), storedBytes: bytes.length };
  const open = async () => Readable.from([bytes], { objectMode: false });
  return { source: { open, sizeBytes: bytes.length, bytes, sha256: digest }, written: () => written };
}

function lastOf(written: (() => Written) | undefined): Written {
  if (written === undefined) throw new TypeError("the driver has stored a body that it never opened");
  return written();
}

/** Puts a header before what passes and a trailer behind it, and digests all of it. */
class Envelop extends Transform {
  readonly #content: () => { readonly contentDigest: string; readonly contentBytes: number };
  readonly #head: Buffer;
  readonly #digester = new Digester();
  #written: Omit<Written, "codec"> | undefined;

  constructor(head: Buffer, content: () => { readonly contentDigest: string; readonly contentBytes: number }) {
    super();
    this.#head = head;
    this.#content = content;
    this.#digester.update(head);
    this.push(head);
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#digester.update(chunk);
    done(null, chunk);
  }

  override _flush(done: TransformCallback): void {
    const { contentDigest, contentBytes } = this.#content();
    const payloadBytes = this.#digester.bytes - this.#head.length;
    const trailer = formatTrailer({ contentDigest, contentBytes, payloadBytes });
    this.#digester.update(trailer);
    const storedBytes = this.#digester.bytes;
    this.#written = { contentDigest, contentBytes, storedDigest: this.#digester.digest(), storedBytes };
    done(null, trailer);
  }

  written(): Omit<Written, "codec"> {
    if (this.#written === undefined) throw new TypeError("the driver has stored a body that it never read to its end");
    return this.#written;
  }
}

/** The codec, where what is known of the body decides it. */
function knownCodec(
  { sizeBytes, isCompressed }: Pick<ObjectBody, "sizeBytes" | "isCompressed">,
  compression: Compression,
): Codec | undefined {
  if (isCompressed || !compression.enabled) return "none";
  if (sizeBytes === undefined) return undefined;
  return sizeBytes > compression.minSizeKbytes * 1024 ? compression.algorithm : "none";
}

async function chooseCodec(
  opened: Readable,
  body: ObjectBody,
  compression: Compression,
): Promise<{ readonly codec: Codec; readonly content: Readable }> {
  const known = knownCodec(body, compression);
  if (known !== undefined) return { codec: known, content: opened };
  const least = Math.min(compression.minSizeKbytes * 1024, heldBackBytesMax);
  const heldBack: Buffer[] = [];
  let length = 0;
  for await (const chunk of opened.iterator({ destroyOnReturn: false })) {
    heldBack.push(chunk as Buffer);
    length += (chunk as Buffer).length;
    if (length > least) break;
  }
  const begun = Buffer.concat(heldBack, length);
  if (length <= least) return { codec: "none", content: Readable.from(length === 0 ? [] : [begun]) };
  if (opened.readableEnded) return { codec: compression.algorithm, content: Readable.from([begun]) };
  opened.unshift(begun);
  return { codec: compression.algorithm, content: opened };
}
