import { createHash, type Hash } from "node:crypto";
import type { Limits } from "../config/index.ts";
import { isCode, StowageError } from "../errors/index.ts";
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
 * Of a layer that makes no sense the rest is read as well: bytes that a disk or a network has damaged are called by that name.
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
  // A tar that is its own blob, as in archives of Docker, is hashed once: the same bytes prove both.
  const isOwnBlob = expected.compression === "none" && `${expected.blobDigest}` === expected.diffId;
  const diffHash = isOwnBlob ? undefined : createHash(algorithmOf(expected.diffId));
  using measured = new MeasuredBlob(blob, expected);
  let layerBytes = 0;
  let contentBytes = 0;

  const guard = (bytes: number): void => {
    checkLimit(limits, "layerBytesMax", bytes, layer);
    const ratio = bytes > ratioFreeBytes ? Math.ceil(bytes / Math.max(1, measured.bytes)) : 0;
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

  try {
    for await (const chunk of decompress(measured, expected.compression, layer)) {
      layerBytes += chunk.length;
      guard(layerBytes);
      diffHash?.update(chunk);
      reader.write(chunk);
    }
  } catch (error) {
    if (isCode(error, "LAYER_COMPRESSION_INVALID", "LAYER_TAR_INVALID")) await measured.blame(error);
    throw error;
  }
  await measured.prove();
  if (diffHash) checkDigest(`diffID of layer ${layer}`, expected.diffId, diffHash);
  reader.end();
  return layerBytes;
}

/** A blob that is counted and hashed as it passes. Who reads it may stop: it stays open for the rest, until it is disposed of. */
class MeasuredBlob implements AsyncIterable<Buffer>, Disposable {
  bytes = 0;
  readonly #expected: ExpectedLayer;
  readonly #hash: Hash;
  readonly #chunks: AsyncGenerator<Buffer>;
  /** What the source threw, whoever asked for the chunk: a decoder that was given up may still have been waiting for one. */
  #failure: { readonly error: unknown } | undefined;

  constructor(blob: AsyncIterable<Buffer>, expected: ExpectedLayer) {
    this.#expected = expected;
    this.#hash = createHash(algorithmOf(expected.blobDigest));
    this.#chunks = this.#measure(blob);
  }

  /** Without a `return`: see above. Chunks that several ask for come to each in turn. */
  [Symbol.asyncIterator](): AsyncIterator<Buffer> {
    return { next: () => this.#chunks.next() };
  }

  /**
   * Reads what is left, for what a decoder did not ask for still belongs to the blob, and compares.
   * @throws StowageError `IMAGE_SIZE_MISMATCH`, `IMAGE_DIGEST_MISMATCH`
   */
  async prove(cause?: StowageError): Promise<void> {
    for await (const _ of this);
    const { blobBytes, blobDigest } = this.#expected;
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.bytes !== blobBytes) throw sizeMismatch(this.#expected, this.bytes, cause);
    checkDigest(`blob ${blobDigest}`, blobDigest, this.#hash, cause);
  }

  /**
   * Throws what explains that the blob makes no sense, if its bytes are not those that the image names.
   * @throws StowageError `IMAGE_SIZE_MISMATCH`, `IMAGE_DIGEST_MISMATCH`
   */
  async blame(fault: StowageError): Promise<void> {
    try {
      await this.prove(fault);
    } catch (error) {
      // A source that fails only now does not explain what was wrong before.
      if (isCode(error, "IMAGE_SIZE_MISMATCH", "IMAGE_DIGEST_MISMATCH")) throw error;
    }
  }

  /** Does not wait: a source that has come to a stop must not hold up an error. */
  [Symbol.dispose](): void {
    this.#chunks.return(undefined).catch(() => undefined);
  }

  async *#measure(blob: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    try {
      for await (const chunk of blob) {
        this.bytes += chunk.length;
        // More than was announced goes to nobody; that it came shows when the blob is proven.
        if (this.bytes > this.#expected.blobBytes) return;
        this.#hash.update(chunk);
        yield chunk;
      }
    } catch (error) {
      this.#failure = { error };
      throw error;
    }
  }
}

function algorithmOf(digest: Digest | DiffId): string {
  return digest.slice(0, digest.indexOf(":"));
}

function sizeMismatch(expected: ExpectedLayer, actual: number, cause?: StowageError): StowageError {
  const details = { what: `blob ${expected.blobDigest}`, expected: expected.blobBytes, actual };
  return new StowageError("IMAGE_SIZE_MISMATCH", details, { cause });
}

function checkDigest(what: string, expected: Digest | DiffId, hash: Hash, cause?: StowageError): void {
  const actual = `${algorithmOf(expected)}:${hash.digest("hex")}`;
  if (actual !== expected) throw new StowageError("IMAGE_DIGEST_MISMATCH", { what, expected, actual }, { cause });
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
