import type { Transform } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { StowageError } from "../errors/index.ts";
import type { LayerCompression } from "../oci/index.ts";
import { ZstdFrames } from "./zstd-frames.ts";

/** Each is a change of threads, and cuts a file whose digests then cost more than of one piece; larger ones gain nothing any more. */
const outputChunkBytes = 1024 * 1024;

/**
 * The uncompressed bytes of a layer's blob. Media type and first bytes must agree; where the media type says nothing the bytes decide.
 * Several gzip members or zstd frames are one stream.
 * @throws StowageError `LAYER_COMPRESSION_INVALID`
 */
export async function* decompress(
  blob: AsyncIterable<Buffer>,
  announced: LayerCompression | undefined,
  layer: string,
): AsyncGenerator<Buffer> {
  const chunks = blob[Symbol.asyncIterator]();
  const head = await readHead(chunks);
  const found = detectCompression(head);
  if (announced !== undefined && announced !== found && head.length > 0) {
    await chunks.return?.();
    throw new StowageError("LAYER_COMPRESSION_INVALID", {
      layer,
      reason: `its media type says ${announced}, its first bytes say ${found}`,
    });
  }
  if (head.length === 0 && announced !== undefined && announced !== "none") {
    throw new StowageError("LAYER_COMPRESSION_INVALID", {
      layer,
      reason: "nothing at all where compressed bytes should be",
    });
  }
  const whole = prepend(head, chunks);
  if (found === "none") yield* whole;
  else yield* translateErrors(found === "gzip" ? gunzip(whole) : unzstd(whole), layer);
}

/** @see RFC 1952, RFC 8878 (also for skippable frames) */
function detectCompression(head: Buffer): LayerCompression {
  if (head.length >= 3 && head[0] === 0x1f && head[1] === 0x8b && head[2] === 0x08) return "gzip";
  if (head.length >= 4) {
    const magic = head.readUInt32LE(0);
    if (magic === 0xfd2fb528 || (magic >= 0x184d2a50 && magic <= 0x184d2a5f)) return "zstd";
  }
  return "none";
}

async function readHead(chunks: AsyncIterator<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  while (length < 4) {
    const { value, done } = await chunks.next();
    if (done) break;
    parts.push(value);
    length += value.length;
  }
  return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
}

async function* prepend(head: Buffer, rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  try {
    if (head.length > 0) yield head;
    for (;;) {
      const { value, done } = await rest.next();
      if (done) return;
      yield value;
    }
  } finally {
    await rest.return?.();
  }
}

/** Node reads concatenated members; zeros between members would end it silently, which the diffID check catches. */
function gunzip(blob: AsyncIterable<Buffer>): AsyncIterable<Buffer> {
  return through(blob, createGunzip({ chunkSize: outputChunkBytes }));
}

/** Node's decoder stops after one frame, so the stream is cut into frames, each with a decoder of its own. */
async function* unzstd(blob: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const frames = new ZstdFrames(blob[Symbol.asyncIterator]());
  try {
    while (await frames.next()) yield* through(frames.content(), createZstdDecompress({ chunkSize: outputChunkBytes }));
  } finally {
    await frames.close();
  }
}

/** Output of `decoder` for `input`. A piece is valid until the next one is asked for. */
async function* through(input: AsyncIterable<Buffer>, decoder: Transform): AsyncGenerator<Buffer> {
  feed(input, decoder).catch((error: unknown) => {
    decoder.destroy(error instanceof Error ? error : new Error(String(error)));
  });
  try {
    for await (const chunk of decoder) {
      yield chunk as Buffer;
      release(chunk as Buffer);
    }
  } finally {
    decoder.destroy();
  }
}

/**
 * Frees the memory of a piece at once, if the piece reaches to the end of it: a decoder that has filled a buffer goes on to another, and pieces of a
 * blob that have their memory for themselves are given away. Left to the garbage collector, a layer's worth of large buffers makes it run
 * hundreds of times over a heap with nothing to find.
 */
function release(piece: Buffer): void {
  const { buffer } = piece;
  const isOutput = piece.byteOffset + piece.length === buffer.byteLength && buffer.byteLength === outputChunkBytes;
  const isWhole = piece.length === buffer.byteLength && piece.length > 0;
  if ((isOutput || isWhole) && buffer instanceof ArrayBuffer) buffer.transfer(0);
}

/** One chunk waits in the decoder while it works on another: its thread then goes on at once, whatever this one is busy with. */
async function feed(input: AsyncIterable<Buffer>, decoder: Transform): Promise<void> {
  let before: Promise<void> = Promise.resolve();
  for await (const chunk of input) {
    if (decoder.destroyed) return;
    const written = write(chunk, decoder);
    written.catch(() => {}); // it is awaited after the next chunk
    await before;
    before = written;
  }
  await before;
  decoder.end();
}

async function write(chunk: Buffer, decoder: Transform): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const stop = () => reject(new Error("the decoder was stopped"));
    decoder.once("close", stop);
    decoder.write(chunk, (error) => {
      decoder.off("close", stop);
      if (error) reject(error);
      else resolve();
    });
  });
  release(chunk);
}

async function* translateErrors(output: AsyncIterable<Buffer>, layer: string): AsyncGenerator<Buffer> {
  try {
    yield* output;
  } catch (error) {
    if (isDecoderError(error)) {
      throw new StowageError("LAYER_COMPRESSION_INVALID", { layer, reason: error.message }, { cause: error });
    }
    throw error;
  }
}

function isDecoderError(error: unknown): error is Error {
  if (!(error instanceof Error)) return false;
  const { code } = error as NodeJS.ErrnoException;
  return typeof code === "string" && (code.startsWith("Z_") || code.startsWith("ZSTD_"));
}
