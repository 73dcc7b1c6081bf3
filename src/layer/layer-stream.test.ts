import { createHash } from "node:crypto";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { tarStream } from "../../test/images/builder.ts";
import { defaultLimits, type Limits } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import { type ExpectedLayer, streamLayer } from "./layer-stream.ts";

const sha256 = (bytes: Buffer) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const text = (index: number) => createHash("sha512").update(String(index)).digest("hex").repeat(100);
const tar = tarStream(Array.from({ length: 40 }, (_, index) => ({ path: `f${index}`, content: text(index) })));
const blobs = { none: tar, gzip: gzipSync(tar), zstd: zstdCompressSync(tar) } as const;
const kinds = Object.entries(blobs) as [keyof typeof blobs, Buffer][];
const pieceBytes = 1000;

/** A source in a test: what was asked of it. */
interface Source {
  chunks(): AsyncGenerator<Buffer>;
  bytesRead: number;
  isClosed: boolean;
}

/** Gives `bytes`, then fails if it is told to. */
function sourceOf(bytes: Buffer, failure?: Error): Source {
  return {
    bytesRead: 0,
    isClosed: false,
    async *chunks() {
      try {
        for (let at = 0; at < bytes.length; at += pieceBytes) {
          const piece = Buffer.from(bytes.subarray(at, at + pieceBytes));
          this.bytesRead += piece.length;
          yield piece;
        }
        if (failure) throw failure;
      } finally {
        this.isClosed = true;
      }
    },
  };
}

const handler = { begin: () => undefined, content: () => undefined, finish: () => undefined };

/** Reads a layer that is said to be `blob`. */
async function failureOf(
  source: Source,
  blob: Buffer,
  compression: ExpectedLayer["compression"],
  limits: Partial<Limits> = {},
): Promise<StowageError> {
  const expected = { blobDigest: sha256(blob), blobBytes: blob.length, diffId: sha256(tar), compression };
  const reading = streamLayer(source.chunks(), expected as ExpectedLayer, handler, { ...defaultLimits, ...limits });
  const failure = await reading.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(StowageError);
  return failure as StowageError;
}

function flipped(blob: Buffer, at: number): Buffer {
  const copy = Buffer.from(blob);
  copy[at] = (copy[at] as number) ^ 0x40;
  return copy;
}

const incompressible = Buffer.concat(
  Array.from({ length: 2000 }, (_, index) => createHash("sha512").update(String(index)).digest()),
);

describe("bytes that are not those that the image names", () => {
  it.each(kinds)("%s: a changed byte is a wrong digest, wherever it is", async (compression, blob) => {
    const causes = new Set<unknown>();
    for (let at = 0; at < blob.length; at += Math.ceil(blob.length / 150)) {
      const source = sourceOf(flipped(blob, at));
      const failure = await failureOf(source, blob, compression);
      const details = { what: `blob ${sha256(blob)}`, expected: sha256(blob) };
      expect({ at, code: failure.code, details: failure.details }).toMatchObject({
        at,
        code: "IMAGE_DIGEST_MISMATCH",
        details,
      });
      expect(source.bytesRead).toBe(blob.length);
      causes.add((failure.cause as StowageError | undefined)?.code);
    }
    expect(causes).toContain(compression === "none" ? "LAYER_TAR_INVALID" : "LAYER_COMPRESSION_INVALID");
  });

  it.each(kinds)("%s: other bytes of the same length are a wrong digest", async (compression, blob) => {
    for (const other of [Buffer.alloc(blob.length, "<html>"), Buffer.alloc(blob.length)]) {
      expect((await failureOf(sourceOf(other), blob, compression)).code).toBe("IMAGE_DIGEST_MISMATCH");
    }
  });

  it.each(kinds)("%s: fewer or more bytes are a wrong size", async (compression, blob) => {
    const garbage = Buffer.alloc(blob.length + 1, "<html>");
    const others = [0, 1, 2000, blob.length - 1].map((length) => blob.subarray(0, length));
    for (const other of [...others, Buffer.concat([blob, blob]), garbage, garbage.subarray(0, 2000)]) {
      const { code, details } = await failureOf(sourceOf(other), blob, compression);
      expect({ length: other.length, code, details }).toMatchObject({ code: "IMAGE_SIZE_MISMATCH" });
      expect(details).toMatchObject({ what: `blob ${sha256(blob)}`, expected: blob.length });
    }
  });

  it("no more is read than was announced, and one piece", async () => {
    const source = sourceOf(Buffer.alloc(10_000_000, "<html>"));
    const failure = await failureOf(source, blobs.gzip, "gzip");
    expect(failure).toMatchObject({ code: "IMAGE_SIZE_MISMATCH", cause: { code: "LAYER_COMPRESSION_INVALID" } });
    expect(source.bytesRead).toBeLessThanOrEqual(blobs.gzip.length + pieceBytes);
    expect(source.isClosed).toBe(true);
  });
});

describe("a layer that makes no sense", () => {
  /** The first block is of a type that there is not. */
  const broken = Buffer.concat([blobs.gzip.subarray(0, 10), Buffer.from([7]), incompressible]);
  const noTar = gzipSync(Buffer.concat([Buffer.alloc(2000, "no tar"), incompressible]));

  it.each([
    ["in its compression", broken, "LAYER_COMPRESSION_INVALID"],
    ["as a tar", noTar, "LAYER_TAR_INVALID"],
  ])("%s, and has its digest, is called that", async (_, blob, code) => {
    const source = sourceOf(blob);
    expect((await failureOf(source, blob, "gzip")).code).toBe(code);
    expect(source.bytesRead).toBe(blob.length);
    expect(source.isClosed).toBe(true);
  });

  it.each([
    ["in its compression", broken, "LAYER_COMPRESSION_INVALID"],
    ["as a tar", noTar, "LAYER_TAR_INVALID"],
  ])("%s stays that, if the source fails afterwards", async (_, blob, code) => {
    for (const failure of [
      new StowageError("REGISTRY_UNREACHABLE", { host: "h", reason: "it went away" }),
      new StowageError("INPUT_INTERRUPTED", {}),
      new Error("disk"),
    ]) {
      expect((await failureOf(sourceOf(blob.subarray(0, 5000), failure), blob, "gzip")).code).toBe(code);
    }
  });

  it("is of another size, if the source says so afterwards", async () => {
    const told = new StowageError("IMAGE_SIZE_MISMATCH", { what: "layer", expected: broken.length, actual: 5000 });
    expect(await failureOf(sourceOf(broken.subarray(0, 5000), told), broken, "gzip")).toBe(told);
  });

  it("a source that fails before is what failed", async () => {
    for (const [compression, blob] of kinds) {
      const failure = new StowageError("REGISTRY_UNREACHABLE", { host: "h", reason: "it went away" });
      expect(await failureOf(sourceOf(blob.subarray(0, 2000), failure), blob, compression)).toBe(failure);
    }
  });
});

it.each(kinds)("%s: of a layer that exceeds a limit no more is read, and the source is closed", async (kind, blob) => {
  const source = sourceOf(Buffer.concat([blob, incompressible]));
  const failure = await failureOf(source, Buffer.concat([blob, incompressible]), kind, { layerBytesMax: 100 });
  expect(failure.code).toBe("LIMIT_EXCEEDED");
  await expect.poll(() => source.isClosed).toBe(true);
  expect(source.bytesRead).toBeLessThan(incompressible.length);
});

it("a source that has come to a stop does not hold up the error of a limit", async () => {
  const never = new Promise<never>(() => undefined);
  async function* stopping() {
    yield Buffer.from(blobs.gzip);
    await never;
  }
  const source = { ...sourceOf(blobs.gzip), chunks: stopping };
  const blob = Buffer.concat([blobs.gzip, incompressible]);
  expect((await failureOf(source, blob, "gzip", { layerBytesMax: 100 })).code).toBe("LIMIT_EXCEEDED");
});
