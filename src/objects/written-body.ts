import { addAbortSignal, pipeline, Readable, Transform } from "node:stream";
import type { Compression } from "../config/index.ts";
import type { Call } from "../runtime/index.ts";
import { type Codec, encoder } from "./codec.ts";
import { Digester } from "./digester.ts";
import type { BodySource } from "./driver.ts";
import { formatTrailer, trailerBytes } from "./envelope.ts";
import type { ObjectBody } from "./store.ts";

/** What was written: of the content, and of the bytes that are stored for it. */
export interface Written {
  readonly codec: Codec;
  readonly contentDigest: string;
  readonly contentBytes: number;
  readonly storedDigest: string;
  readonly storedBytes: number;
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
  let written: Written | undefined;
  const open = async (call: Call): Promise<Readable> => {
    written = undefined;
    // A body that has stalled must not outlive its call.
    const opened = addAbortSignal(call.signal, await body.open(call));
    const { codec, content } = await chooseCodec(opened, body, compression);
    const head = header(codec);
    const contentDigester = new Digester();
    const storedDigester = new Digester();
    storedDigester.update(head);
    const count = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        contentDigester.update(chunk);
        done(null, chunk);
      },
    });
    const envelop = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        storedDigester.update(chunk);
        done(null, chunk);
      },
      flush(done) {
        const contentDigest = contentDigester.digest();
        const contentBytes = contentDigester.bytes;
        const payloadBytes = storedDigester.bytes - head.length;
        const trailer = formatTrailer({ contentDigest, contentBytes, payloadBytes });
        storedDigester.update(trailer);
        const storedBytes = storedDigester.bytes;
        written = { codec, contentDigest, contentBytes, storedDigest: storedDigester.digest(), storedBytes };
        done(null, trailer);
      },
    });
    envelop.push(head);
    const encode = encoder(codec);
    const stages = encode === undefined ? [content, count, envelop] : [content, count, encode, envelop];
    // The last stream carries the failure; its destruction goes up.
    return pipeline(stages, () => {}) as unknown as Transform;
  };
  const codec = knownCodec(body, compression);
  const sizeBytes =
    codec === "none" && body.sizeBytes !== undefined ? header(codec).length + body.sizeBytes + trailerBytes : undefined;
  return {
    source: sizeBytes === undefined ? { open } : { open, sizeBytes },
    written: () => {
      if (written === undefined) throw new TypeError("the driver has stored a body that it never read to its end");
      return written;
    },
  };
}

/** The codec, where what is known of the body decides it. */
function knownCodec({ sizeBytes, isCompressed }: ObjectBody, compression: Compression): Codec | undefined {
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
