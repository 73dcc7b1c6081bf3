import { Readable } from "node:stream";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { extract } from "tar-stream";
import { describe, expect, it } from "vitest";
import { buildImage, compress, dockerArchive, paxBody, type TarEntry, tarStream } from "./builder.ts";

interface Seen {
  readonly name: string;
  readonly type: string | null | undefined;
  readonly content: string;
  readonly link: string | null | undefined;
  readonly uid: number | undefined;
}

/** What tar-stream, an independent reader, sees. */
async function seenBy(tar: Buffer): Promise<Seen[]> {
  const seen: Seen[] = [];
  const reader = extract();
  Readable.from([tar]).pipe(reader);
  for await (const entry of reader) {
    const chunks: Buffer[] = [];
    for await (const chunk of entry) chunks.push(chunk as Buffer);
    const { name, type, linkname, pax } = entry.header as typeof entry.header & { pax?: Record<string, string> };
    // tar-stream leaves the uid of a pax record to its caller.
    const uid = pax?.uid === undefined ? entry.header.uid : Number(pax.uid);
    seen.push({ name, type, content: Buffer.concat(chunks).toString(), link: linkname, uid });
  }
  return seen;
}

describe("tar writer", () => {
  const deep = `${"d".repeat(90)}/${"e".repeat(60)}`;
  const long = "n".repeat(300);

  it("writes what an independent reader reads", async () => {
    const entries: TarEntry[] = [
      { path: "a", type: "dir" },
      { path: "a/f", content: "hello" },
      { path: deep, content: "ustar prefix" },
      { path: long, content: "pax", linkTarget: "" },
      { path: long, content: "gnu", format: "gnu" },
      { path: "s", type: "symlink", linkTarget: "a/f" },
      { path: "k", type: "symlink", linkTarget: long, format: "gnu" },
      { path: "big-pax", uid: 5_000_000_000, content: "1" },
      { path: "big-gnu", uid: 3_000_000, format: "gnu", content: "2" },
    ];
    const seen = await seenBy(tarStream(entries));
    expect(seen.map((entry) => entry.name.replace(/\/$/, ""))).toEqual([
      "a",
      "a/f",
      deep,
      long,
      long,
      "s",
      "k",
      "big-pax",
      "big-gnu",
    ]);
    expect(seen.map((entry) => entry.content)).toEqual(["", "hello", "ustar prefix", "pax", "gnu", "", "", "1", "2"]);
    expect(seen[6]?.link).toBe(long);
    expect(seen.slice(7).map((entry) => entry.uid)).toEqual([5_000_000_000, 3_000_000]);
  });

  it("counts a pax record's length including the length itself", () => {
    expect(paxBody({ a: "b" }).toString()).toBe("6 a=b\n");
    expect(paxBody([["abc", "x".repeat(91)]]).toString()).toBe(`99 abc=${"x".repeat(91)}\n`);
    expect(paxBody([["abcd", "x".repeat(91)]]).toString()).toBe(`101 abcd=${"x".repeat(91)}\n`);
  });
});

describe("image builder", () => {
  it("is deterministic and compresses in each way", () => {
    const spec = {
      layers: [{ content: [{ path: "f", content: "x".repeat(5000) }], compression: "gzip-members" }],
    } as const;
    expect(buildImage(spec).descriptor).toEqual(buildImage(spec).descriptor);
    const tar = tarStream([{ path: "f", content: "x" }]);
    for (const way of ["gzip", "gzip-members"] as const) expect(gunzipSync(compress(tar, way)).equals(tar)).toBe(true);
    expect(zstdDecompressSync(compress(tar, "zstd")).equals(tar)).toBe(true);
  });

  it("writes a layer that comes twice as a symlink in an old Docker archive", async () => {
    const layer = [{ path: "f", content: "x" }];
    const image = buildImage({ layers: [layer, layer] });
    const seen = await seenBy(dockerArchive([{ image, repoTags: ["a:1"] }]));
    expect(seen.filter((entry) => entry.name.endsWith("layer.tar")).map((entry) => entry.type)).toEqual([
      "file",
      "symlink",
    ]);
  });
});
