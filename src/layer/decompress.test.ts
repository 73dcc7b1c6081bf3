import { createHash } from "node:crypto";
import { crc32, gzipSync, zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { tarStream } from "../../test/images/builder.ts";
import { defaultLimits, type Limits } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import type { LayerCompression } from "../oci/index.ts";
import { decompress } from "./decompress.ts";
import { type ExpectedLayer, streamLayer } from "./layer-stream.ts";

const sha256 = (bytes: Buffer) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
/** Not of one byte, and not short: several blocks, several pieces of output. */
const tar = tarStream(
  Array.from({ length: 40 }, (_, index) => ({
    path: `f${index}`,
    content: Buffer.from(
      createHash("sha512")
        .update(String(index))
        .digest("hex")
        .repeat(index * 8),
    ),
  })),
);
const [first, second] = [tar.subarray(0, 10_000), tar.subarray(10_000)];
const gzip = gzipSync(tar);
const zstd = zstdCompressSync(tar);

async function* pieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  // Copies: whoever reads a blob may give its pieces' memory away.
  for (let at = 0; at < bytes.length; at += size) yield Buffer.from(bytes.subarray(at, at + size));
}

interface Claims {
  readonly content?: Buffer;
  readonly limits?: Partial<Limits>;
  readonly expected?: Partial<ExpectedLayer>;
  readonly pieceBytes?: number;
}

/** `ok`, or the code with what it is about. */
async function outcome(blob: Buffer, claims: Claims = {}): Promise<string> {
  const expected = {
    blobDigest: sha256(blob),
    blobBytes: blob.length,
    diffId: sha256(claims.content ?? tar),
    compression: undefined,
    ...claims.expected,
  } as ExpectedLayer;
  try {
    const handler = { begin: () => undefined, content: () => undefined, finish: () => undefined };
    const source = pieces(blob, claims.pieceBytes ?? 4096);
    const length = await streamLayer(source, expected, handler, { ...defaultLimits, ...claims.limits });
    expect(length).toBe((claims.content ?? tar).length);
    return "ok";
  } catch (error) {
    if (!(error instanceof StowageError)) throw error;
    const details = error.details as { what?: string; limit?: string };
    return [error.code, details.limit ?? details.what?.split(" ")[0] ?? ""].join(" ").trim();
  }
}

const invalid = "LAYER_COMPRESSION_INVALID";
const wrongDiffId = "IMAGE_DIGEST_MISMATCH diffID";

function skippable(content: string, magic = 0x184d2a50): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(magic, 0);
  head.writeUInt32LE(content.length, 4);
  return Buffer.concat([head, Buffer.from(content)]);
}

/** A member with every optional field of its header. */
function gzipWithFields(content: Buffer): Buffer {
  const plain = gzipSync(content);
  const head = Buffer.concat([
    Buffer.from([0x1f, 0x8b, 8, 0b11110, 0, 0, 0, 0, 0, 3]),
    Buffer.from([4, 0]),
    Buffer.from("AB\0\0"),
    Buffer.from("name\0comment\0"),
  ]);
  const sum = Buffer.alloc(2);
  sum.writeUInt16LE(crc32(head) & 0xffff);
  return Buffer.concat([head, sum, plain.subarray(10)]);
}

describe("B1: plain", () => {
  it("reads what is no compression as it is, whatever the pieces", async () => {
    for (const pieceBytes of [1, 511, 512, 100_000]) expect(await outcome(tar, { pieceBytes })).toBe("ok");
  });

  it("nothing at all is an empty layer, where no compression is announced", async () => {
    const nothing = Buffer.alloc(0);
    expect(await outcome(nothing, { content: nothing })).toBe("ok");
    expect(await outcome(nothing, { content: nothing, expected: { compression: "none" } })).toBe("ok");
    for (const compression of ["gzip", "zstd"] as const) {
      expect(await outcome(nothing, { content: nothing, expected: { compression } })).toBe(invalid);
    }
  });
});

describe("B1: gzip", () => {
  it.each([1, 2, 3, 1000, 1_000_000])("reads one member in pieces of %i bytes", async (pieceBytes) => {
    expect(await outcome(gzip, { pieceBytes })).toBe("ok");
  });

  it.each([1, 1000, 1_000_000])("reads several members as one stream, in pieces of %i bytes", async (pieceBytes) => {
    const members = Buffer.concat([gzipSync(first), gzipSync(Buffer.alloc(0)), gzipSync(second)]);
    expect(await outcome(members, { pieceBytes })).toBe("ok");
    expect(
      await outcome(Buffer.concat([...tar].slice(0, 300).map((byte) => gzipSync(Buffer.from([byte])))), {
        content: tar.subarray(0, 0),
        pieceBytes,
      }),
    ).toBe(wrongDiffId);
  });

  it("reads every optional field of a member's header", async () => {
    expect(await outcome(gzipWithFields(tar), { pieceBytes: 7 })).toBe("ok");
  });

  it.each([1, 4096])("accepts zeros at the end, in pieces of %i bytes", async (pieceBytes) => {
    for (const count of [1, 2, 600, 100_000]) {
      if (pieceBytes === 1 && count > 1000) continue;
      expect(await outcome(Buffer.concat([gzip, Buffer.alloc(count)]), { pieceBytes })).toBe("ok");
    }
  });

  it.each([1, 4096])("never takes the part before zeros between members for the whole (%i)", async (pieceBytes) => {
    for (const count of [1, 2, 3, 600, 5000]) {
      const blob = Buffer.concat([gzipSync(first), Buffer.alloc(count), gzipSync(second)]);
      // Go on, or fail: anything but an end without an error.
      expect(["ok", invalid, wrongDiffId]).toContain(await outcome(blob, { pieceBytes }));
      expect([invalid, wrongDiffId]).toContain(await outcome(blob, { pieceBytes, content: Buffer.from("x") }));
    }
  });

  it.each([1, 4096])("refuses other bytes at the end, in pieces of %i bytes", async (pieceBytes) => {
    for (const rubbish of ["x", "rubbish", "\x1f", "\x1f\x8b", "\x1f\x8b\x08rubbish"]) {
      const blob = Buffer.concat([gzip, Buffer.from(rubbish, "latin1")]);
      expect({ rubbish, found: await outcome(blob, { pieceBytes }) }).toEqual({ rubbish, found: invalid });
    }
  });

  it("refuses a cut anywhere", async () => {
    const content = tarStream([{ path: "n", content: "a little" }]);
    const small = gzipSync(content);
    for (let length = 3; length < small.length; length++) {
      const found = await outcome(small.subarray(0, length), { content });
      expect({ length, found }).toEqual({ length, found: invalid });
    }
  });

  it("refuses a wrong checksum and a wrong length", async () => {
    for (const back of [1, 5]) {
      const blob = Buffer.from(gzip);
      blob[blob.length - back] = (blob[blob.length - back] as number) ^ 1;
      expect(await outcome(blob)).toBe(invalid);
    }
  });
});

describe("B1: zstd", () => {
  it.each([1, 2, 1000, 1_000_000])("reads one frame in pieces of %i bytes", async (pieceBytes) => {
    expect(await outcome(zstd, { pieceBytes })).toBe("ok");
  });

  it.each([1, 1000, 1_000_000])(
    "reads several frames, skippable ones among them, in pieces of %i bytes",
    async (pieceBytes) => {
      const [one, two] = [zstdCompressSync(first), zstdCompressSync(second)];
      const table = skippable("a table of contents");
      for (const frames of [
        [one, two],
        [table, one, two],
        [one, skippable("", 0x184d2a5f), two],
        [one, two, table, table],
        [one, zstdCompressSync(Buffer.alloc(0)), two],
      ]) {
        expect(await outcome(Buffer.concat(frames), { pieceBytes })).toBe("ok");
      }
    },
  );

  it("takes only skippable frames for nothing", async () => {
    expect(await outcome(skippable("table"), { content: Buffer.alloc(0) })).toBe("ok");
  });

  it.each([1, 4096])("refuses zeros and other bytes after a frame, in pieces of %i bytes", async (pieceBytes) => {
    for (const rubbish of [Buffer.alloc(1), Buffer.alloc(600), Buffer.from("rubbish"), zstd.subarray(0, 3)]) {
      expect(await outcome(Buffer.concat([zstd, rubbish]), { pieceBytes })).toBe(invalid);
    }
  });

  it("refuses a cut anywhere, also in a skippable frame", async () => {
    const content = tarStream([{ path: "n", content: "a little" }]);
    const small = Buffer.concat([zstdCompressSync(content), skippable("table")]);
    const whole = zstdCompressSync(content).length;
    for (let length = 4; length < small.length; length++) {
      const found = await outcome(small.subarray(0, length), { content });
      expect({ length, found }).toEqual({ length, found: length === whole ? "ok" : invalid });
    }
  });

  it("refuses a block of the reserved type", async () => {
    const frame = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x01, 0x07, 0, 0, 0x61]);
    expect(await outcome(frame)).toBe(invalid);
  });
});

describe("claims about a layer", () => {
  it("the media type and the first bytes must agree", async () => {
    const blobs: Readonly<Record<LayerCompression, Buffer>> = { none: tar, gzip, zstd };
    for (const announced of ["none", "gzip", "zstd"] as const) {
      for (const [found, blob] of Object.entries(blobs)) {
        expect(await outcome(blob, { expected: { compression: announced } })).toBe(
          announced === found ? "ok" : invalid,
        );
      }
    }
  });

  it("knows a compression by all of its magic", async () => {
    for (const head of [
      [0x1f, 0x8b, 9],
      [0x28, 0xb5, 0x2f],
      [0x50, 0x2a, 0x4d, 0x17],
    ]) {
      const output: Buffer[] = [];
      for await (const piece of decompress(pieces(Buffer.from(head), 1), undefined, "test"))
        output.push(Buffer.from(piece));
      expect([...Buffer.concat(output)]).toEqual(head);
    }
  });

  it.each([
    ["none", tar],
    ["gzip", gzip],
    ["zstd", zstd],
  ])("%s: size, digest and diffID are checked", async (_, blob) => {
    const other = sha256(Buffer.from("other")) as ExpectedLayer["blobDigest"];
    expect(await outcome(blob, { expected: { blobDigest: other } })).toBe("IMAGE_DIGEST_MISMATCH blob");
    expect(await outcome(blob, { content: Buffer.from("other"), expected: {} })).toBe(wrongDiffId);
    for (const blobBytes of [0, blob.length - 1, blob.length + 1, 2 ** 40]) {
      expect(["IMAGE_SIZE_MISMATCH blob", "LIMIT_EXCEEDED layerBlobBytesMax"]).toContain(
        await outcome(blob, { expected: { blobBytes } }),
      );
    }
  });

  it("proves a tar that is its own blob by one digest, and nothing else by it", async () => {
    const said = (blob: Buffer, compression: ExpectedLayer["compression"]) => ({
      expected: { diffId: sha256(blob), compression } as Partial<ExpectedLayer>,
    });
    const other = { blobDigest: sha256(gzip), diffId: sha256(gzip), compression: "none" } as Partial<ExpectedLayer>;
    expect(await outcome(tar, said(tar, "none"))).toBe("ok");
    expect(await outcome(tar, { expected: other })).toBe("IMAGE_DIGEST_MISMATCH blob");
    expect(await outcome(gzip, said(gzip, "gzip"))).toBe(wrongDiffId);
    expect(await outcome(gzip, said(gzip, undefined))).toBe(wrongDiffId);
    expect(await outcome(gzip, said(gzip, "none"))).toBe(invalid);
  });

  it("closes the source of a blob that is not what it is said to be", async () => {
    let isClosed = false;
    const source = async function* () {
      try {
        yield* pieces(gzip, 500);
      } finally {
        isClosed = true;
      }
    };
    const read = async () => {
      for await (const _ of decompress(source(), "zstd", "test"));
    };
    await expect(read()).rejects.toMatchObject({ code: invalid });
    expect(isClosed).toBe(true);
  });

  it("passes on the error of the source", async () => {
    async function* failing(): AsyncGenerator<Buffer> {
      yield Buffer.from(gzip.subarray(0, 1000));
      throw new StowageError("IMAGE_SIZE_MISMATCH", { what: "the source", expected: 1, actual: 2 });
    }
    const read = async () => {
      for await (const _ of decompress(failing(), undefined, "test"));
    };
    await expect(read()).rejects.toMatchObject({ code: "IMAGE_SIZE_MISMATCH" });
  });

  it.each([
    ["none", tar],
    ["gzip", gzip],
    ["zstd", zstd],
    ["two frames of zstd", Buffer.concat([zstd, zstd])],
  ])("%s: closes the source when its reader stops early", async (_, blob) => {
    let isClosed = false;
    const source = async function* () {
      try {
        for await (const piece of pieces(blob, 500)) yield piece;
      } finally {
        isClosed = true;
      }
    };
    for await (const _ of decompress(source(), undefined, "test")) break;
    await expect.poll(() => isClosed).toBe(true);
  });
});

describe("G11: bombs", () => {
  const zeros = Buffer.alloc(128 * 1024 * 1024);

  it.each([
    ["gzip", () => gzipSync(zeros, { level: 1 })],
    ["zstd", () => zstdCompressSync(zeros)],
  ])("%s of zeros: its ratio and its length are bounded", async (_, bomb) => {
    const blob = bomb();
    expect(await outcome(blob, { content: zeros, limits: { layerRatioMax: 100 } })).toBe(
      "LIMIT_EXCEEDED layerRatioMax",
    );
    expect(await outcome(blob, { content: zeros, limits: { layerBytesMax: 1_000_000 } })).toBe(
      "LIMIT_EXCEEDED layerBytesMax",
    );
  });

  it("zstd's bombs exceed the default ratio", async () => {
    expect(await outcome(zstdCompressSync(zeros), { content: zeros })).toBe("LIMIT_EXCEEDED layerRatioMax");
  });

  it("the compressed size is bounded by its claim, before anything is read", async () => {
    expect(await outcome(gzip, { limits: { layerBlobBytesMax: 100 } })).toBe("LIMIT_EXCEEDED layerBlobBytesMax");
  });

  it("holes of sparse files count as what they blow up to", async () => {
    for (const form of ["gnu", "pax-1.0"] as const) {
      const sparse = tarStream([
        { path: "s", sparse: { form, realSize: 2 ** 52, chunks: [{ offset: 5, data: "x" }] } },
      ]);
      expect(await outcome(sparse, { content: sparse })).toMatch(/^LIMIT_EXCEEDED layer(Ratio|Bytes)Max$/);
    }
  });
});
