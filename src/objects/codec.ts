import type { Transform } from "node:stream";
import { promisify } from "node:util";
import {
  constants,
  createGunzip,
  createGzip,
  createZstdCompress,
  createZstdDecompress,
  gunzip,
  gzip,
  zstdCompress,
  zstdDecompress,
} from "node:zlib";
import { StowageError } from "../errors/index.ts";

/** How the bytes of an object are stored; recorded with each. */
export type Codec = "none" | "gzip" | "zstd";

/** @throws StowageError `OBJECT_CODEC_UNKNOWN` for one that a newer stowage has written */
export function parseCodec(text: string): Codec {
  if (text === "none" || text === "gzip" || text === "zstd") return text;
  throw new StowageError("OBJECT_CODEC_UNKNOWN", { codec: text }, { hint: "upgrade stowage" });
}

const gzipOptions = { level: 6 };
// The frame's own checksum would only repeat what the digests say.
const zstdOptions = { params: { [constants.ZSTD_c_compressionLevel]: 3 } };

/** What compresses, or `undefined` where nothing does. */
export function encoder(codec: Codec): Transform | undefined {
  if (codec === "gzip") return createGzip(gzipOptions);
  if (codec === "zstd") return createZstdCompress(zstdOptions);
  return undefined;
}

export function decoder(codec: Codec): Transform | undefined {
  if (codec === "gzip") return createGunzip();
  if (codec === "zstd") return createZstdDecompress();
  return undefined;
}

/** The same for bytes that are in memory as a whole. */
export async function encode(codec: Codec, bytes: Buffer): Promise<Buffer> {
  if (codec === "gzip") return await promisify<Buffer, object, Buffer>(gzip)(bytes, gzipOptions);
  if (codec === "zstd") return await promisify<Buffer, object, Buffer>(zstdCompress)(bytes, zstdOptions);
  return bytes;
}

/** Fails, with a code of zlib's, also where more than `bytesMax` would come out. */
export async function decode(codec: Codec, bytes: Buffer, bytesMax: number): Promise<Buffer> {
  // Of nothing, zlib makes no buffer at all.
  const options = { maxOutputLength: Math.max(1, bytesMax) };
  if (codec === "gzip") return await promisify<Buffer, object, Buffer>(gunzip)(bytes, options);
  if (codec === "zstd") return await promisify<Buffer, object, Buffer>(zstdDecompress)(bytes, options);
  return bytes;
}
