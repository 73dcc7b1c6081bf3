import type { Transform } from "node:stream";
import { constants, createGunzip, createGzip, createZstdCompress, createZstdDecompress } from "node:zlib";
import { StowageError } from "../errors/index.ts";

/** How the bytes of an object are stored; recorded with each. */
export type Codec = "none" | "gzip" | "zstd";

/** @throws StowageError `OBJECT_CODEC_UNKNOWN` for one that a newer stowage has written */
export function parseCodec(text: string): Codec {
  if (text === "none" || text === "gzip" || text === "zstd") return text;
  throw new StowageError("OBJECT_CODEC_UNKNOWN", { codec: text }, { hint: "upgrade stowage" });
}

/** What compresses, or `undefined` where nothing does. */
export function encoder(codec: Codec): Transform | undefined {
  if (codec === "gzip") return createGzip({ level: 6 });
  if (codec === "zstd") {
    // The frame's own checksum would only repeat what the digests say.
    return createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: 3 } });
  }
  return undefined;
}

export function decoder(codec: Codec): Transform | undefined {
  if (codec === "gzip") return createGunzip();
  if (codec === "zstd") return createZstdDecompress();
  return undefined;
}
