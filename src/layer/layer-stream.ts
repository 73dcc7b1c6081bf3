import { createHash, type Hash } from "node:crypto";
import type { Limits } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import type { DiffId, Digest, LayerCompression } from "../oci/index.ts";
import { decompress } from "./decompress.ts";
import { type TarHandler, TarReader } from "./tar-reader.ts";

/** What an image says of a layer; everything is checked against the bytes. */
export interface ExpectedLayer {
  readonly blobDigest: Digest;
  readonly blobBytes: number;
  readonly diffId: DiffId;
  readonly compression: LayerCompression | undefined;
}

/** No ratio is judged before so many bytes have come out. */
const ratioFreeBytes = 64 * 1024 * 1024;

/**
 * Passes a layer's blob once: blob digest and size, decompression, diffID, tar entries to `handler`. Returns the uncompressed length.
 * Chunks of `blob` are given away: one that has its memory for itself is freed when it has passed.
 * @throws StowageError `IMAGE_SIZE_MISMATCH`, `IMAGE_DIGEST_MISMATCH`, `LAYER_COMPRESSION_INVALID`, `LAYER_TAR_INVALID`, `LIMIT_EXCEEDED`
 */
export async function streamLayer(
  blob: AsyncIterable<Buffer>,
  expected: ExpectedLayer,
  handler: TarHandler,
  limits: Limits,
): Promise<number> {
  const layer = expected.blobDigest;
  checkLimit(limits, "layerBlobBytesMax", expected.blobBytes, layer);
  const blobHash = createHash(algorithmOf(expected.blobDigest));
  // A tar that is its own blob, as in archives of Docker, is hashed once: the same bytes prove both.
  const isOwnBlob = expected.compression === "none" && `${expected.blobDigest}` === expected.diffId;
  const diffHash = isOwnBlob ? undefined : createHash(algorithmOf(expected.diffId));
  let blobBytes = 0;
  let layerBytes = 0;
  let contentBytes = 0;

  async function* counted(): AsyncGenerator<Buffer> {
    for await (const chunk of blob) {
      blobBytes += chunk.length;
      if (blobBytes > expected.blobBytes) throw sizeMismatch(expected, blobBytes);
      blobHash.update(chunk);
      yield chunk;
    }
  }
  const guard = (bytes: number): void => {
    checkLimit(limits, "layerBytesMax", bytes, layer);
    const ratio = bytes > ratioFreeBytes ? Math.ceil(bytes / Math.max(1, blobBytes)) : 0;
    checkLimit(limits, "layerRatioMax", ratio, layer);
  };
  const reader = new TarReader(
    {
      begin: (entry) => handler.begin(entry),
      content(bytes) {
        // Holes of sparse files come from nothing: they count like anything else that a few bytes blow up to.
        contentBytes += bytes.length;
        if (contentBytes > layerBytes) guard(contentBytes);
        handler.content(bytes);
      },
      finish: () => handler.finish(),
    },
    limits,
    layer,
  );

  const blobChunks = counted();
  for await (const chunk of decompress(blobChunks, expected.compression, layer)) {
    layerBytes += chunk.length;
    guard(layerBytes);
    diffHash?.update(chunk);
    reader.write(chunk);
  }
  // What a decoder did not ask for still belongs to the blob.
  for await (const _ of blobChunks);
  if (blobBytes !== expected.blobBytes) throw sizeMismatch(expected, blobBytes);
  checkDigest("blob", expected.blobDigest, blobHash);
  if (diffHash) checkDigest(`diffID of layer ${layer}`, expected.diffId, diffHash);
  reader.end();
  return layerBytes;
}

function algorithmOf(digest: Digest | DiffId): string {
  return digest.slice(0, digest.indexOf(":"));
}

function sizeMismatch(expected: ExpectedLayer, actual: number): StowageError {
  return new StowageError("IMAGE_SIZE_MISMATCH", {
    what: `blob ${expected.blobDigest}`,
    expected: expected.blobBytes,
    actual,
  });
}

function checkDigest(what: string, expected: Digest | DiffId, hash: Hash): void {
  const actual = `${algorithmOf(expected)}:${hash.digest("hex")}`;
  if (actual !== expected) throw new StowageError("IMAGE_DIGEST_MISMATCH", { what, expected, actual });
}

function checkLimit(
  limits: Limits,
  limit: "layerBlobBytesMax" | "layerBytesMax" | "layerRatioMax",
  found: number,
  where: string,
): void {
  if (found <= limits[limit]) return;
  throw new StowageError(
    "LIMIT_EXCEEDED",
    { limit, max: limits[limit], found, where },
    { hint: `the layer may be a decompression bomb; raise the limit with --limit ${limit}=…, if you trust it` },
  );
}
