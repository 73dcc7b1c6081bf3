import { Readable } from "node:stream";
import { beforeAll, describe, expect, it } from "vitest";
import type { TarEntry } from "../../test/images/builder.ts";
import { analyzeTestLayer } from "../../test/layers/squash.ts";
import { defaultLimits } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import { type LayerDocument, LayerReading, readOwnedFiles } from "./document.ts";
import type { Cataloger } from "./findings.ts";

/** Finds a list of files in each file called `list`. */
const lists: Cataloger = {
  name: "lists",
  version: 1,
  wants: ["**/list"],
  fileBytesMax: 1000,
  *catalog(files) {
    for (const file of files) {
      const paths = file.read().toString().split(" ");
      yield { kind: "list", path: file.path, value: paths.length, files: paths.map((path) => ({ path })) };
    }
  },
  reconcile: () => ({ packages: [] }),
};

const entries: readonly TarEntry[] = [
  { path: "a/list", content: "x y z" },
  { path: "b/list", content: "u" },
  { path: "usr", type: "dir", mode: 0o1777, uid: 3_000_000, gid: 4_000_000, mtime: -5 },
  { path: Buffer.from("n\xff", "latin1"), content: "bytes", mtime: 2 ** 33 },
  { path: "s", type: "symlink", linkTarget: "../a" },
  { path: "m", type: "hardlink", linkTarget: "a/list" },
  { path: "l", type: "hardlink", linkTarget: "below" },
  { path: "c", type: "char", device: [5, 300] },
  { path: "cap", content: "", pax: { "SCHILY.xattr.security.capability": Buffer.from([1, 0, 0xff]) } },
  { path: ".wh.gone" },
  { path: "d/.wh..wh..opq" },
  { path: "d/.wh." },
];

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function everything(document: LayerDocument) {
  await using reading = await LayerReading.open(document);
  const summary = await reading.summary(3);
  const owned = await collect(readOwnedFiles(document));
  const all = (await collect(reading.entries())).flat();
  return { summary, owned, all };
}

async function bytesOf(document: LayerDocument): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of await document.open()) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

let bytes: Buffer;
let whole: Awaited<ReturnType<typeof everything>>;

beforeAll(async () => {
  using layer = await analyzeTestLayer(entries, { catalogers: [lists] });
  bytes = await bytesOf(layer.document);
  whole = await everything(layer.document);
});

const documentOf = (content: Buffer, pieceBytes = content.length || 1): LayerDocument => ({
  name: "test",
  async open() {
    const pieces: Buffer[] = [];
    for (let at = 0; at < content.length; at += pieceBytes) pieces.push(content.subarray(at, at + pieceBytes));
    return Readable.from(pieces);
  },
});

describe("layer documents", () => {
  it("give back what went in", () => {
    const { summary, owned, all } = whole;
    expect(summary.facts).toMatchObject({
      tarEntries: entries.length,
      entries: all.length,
      findings: 2,
      lowerLinks: 1,
      notesLeftOut: 0,
    });
    expect(summary.findings).toMatchObject([
      { kind: "list", path: "a/list", value: 3, layer: 3, ordinal: 0, hasFiles: true },
      { kind: "list", path: "b/list", value: 1, layer: 3, ordinal: 1, hasFiles: true },
    ]);
    expect(summary.notes.map(({ code }) => code)).toEqual(["bare-whiteout"]);
    expect(owned).toEqual([
      { ordinal: 0, files: [{ path: "x" }, { path: "y" }, { path: "z" }] },
      { ordinal: 1, files: [{ path: "u" }] },
    ]);
    const byKey = new Map(all.map((entry) => [entry.key.replaceAll("\0", "/"), entry]));
    expect([...byKey.keys()]).toEqual(["a/list", "b/list", "c", "cap", "d", "gone", "l", "m", "n\xff", "s", "usr"]);
    expect(byKey.get("usr")?.node).toMatchObject({ type: "dir", mode: 0o1777, uid: 3e6, gid: 4e6, mtime: -5 });
    expect(byKey.get("n\xff")?.node).toMatchObject({ type: "file", size: 5, mtime: 2 ** 33 });
    expect(byKey.get("s")?.node).toMatchObject({ type: "symlink", mode: 0o777, link: "../a" });
    expect(byKey.get("m")?.node).toMatchObject({ type: "file", link: "a\0list", size: 5 });
    expect(byKey.get("l")?.node).toMatchObject({ type: "hardlink", link: "below" });
    expect(byKey.get("c")?.node).toMatchObject({ type: "char", deviceMajor: 5, deviceMinor: 300 });
    expect(byKey.get("cap")?.node?.xattrs).toEqual({ "security.capability": "\x01\0\xff" });
    expect(byKey.get("gone")).toMatchObject({ isWhiteout: true, node: undefined });
    expect(byKey.get("d")).toMatchObject({ isOpaque: true, node: undefined });
  });

  it("are the same bytes for the same layer, whatever the pieces that it came in", async () => {
    for (const chunkBytes of [1, 1000]) {
      using layer = await analyzeTestLayer(entries, { catalogers: [lists], chunkBytes });
      expect(await bytesOf(layer.document)).toEqual(bytes);
    }
  });

  it.each([1, 7, 13, 64])("can be read in pieces of %i bytes", async (pieceBytes) => {
    expect(await everything(documentOf(bytes, pieceBytes))).toEqual(whole);
  });

  it("that are damaged are refused, or have the same content: each byte changed in four ways", async () => {
    let accepted = 0;
    for (let at = 0; at < bytes.length; at++) {
      for (const bits of [0x01, 0x10, 0x80, 0xff]) {
        const damaged = Buffer.from(bytes);
        damaged[at] = (damaged[at] as number) ^ bits;
        if (!(await isRefused(damaged, `byte ${at} changed by ${bits}`))) accepted++;
      }
    }
    // Bits of zstd that say nothing may differ.
    expect(accepted).toBeLessThan(bytes.length / 10);
  });

  it("that are cut off anywhere are refused", async () => {
    for (let length = 0; length < bytes.length; length++) {
      expect({ length, isRefused: await isRefused(bytes.subarray(0, length), `cut at ${length}`) }).toEqual({
        length,
        isRefused: true,
      });
    }
  });

  it("with bytes behind their end are refused", async () => {
    expect(await isRefused(Buffer.concat([bytes, Buffer.alloc(1)]), "longer")).toBe(true);
  });

  async function isRefused(content: Buffer, how: string): Promise<boolean> {
    try {
      expect(await everything(documentOf(content)), how).toEqual(whole);
      return false;
    } catch (error) {
      if (!(error instanceof StowageError)) throw error;
      expect({ how, code: error.code }).toEqual({ how, code: "LAYER_DOCUMENT_INVALID" });
      return true;
    }
  }
});

describe("contents for catalogers", () => {
  const found = async (spec: readonly TarEntry[], limits = defaultLimits) => {
    using layer = await analyzeTestLayer(spec, { catalogers: [lists], limits });
    await using reading = await LayerReading.open(layer.document);
    const { findings, notes } = await reading.summary(0);
    return {
      findings: findings.map(({ path, value }) => [path, value]),
      notes: notes.map(({ code, path }) => [code, path]),
    };
  };

  it("are found under names that show only at the end of the layer", async () => {
    const spec: TarEntry[] = [
      { path: "real", type: "dir" },
      { path: "data", content: "1 2" },
      { path: "link", type: "symlink", linkTarget: "real" },
      { path: "link/list", content: "3 4 5" },
      { path: "hard/list", type: "hardlink", linkTarget: "data" },
    ];
    expect(await found(spec)).toEqual({
      findings: [
        ["hard/list", 2],
        ["real/list", 3],
      ],
      notes: [],
    });
  });

  it("are those of the last of a name", async () => {
    expect(
      await found([
        { path: "list", content: "1" },
        { path: "list", content: "1 2" },
      ]),
    ).toMatchObject({
      findings: [["list", 2]],
    });
  });

  it("that are larger than a cataloger reads, or more than are kept of a layer, are left out with a note", async () => {
    const large = { path: "large/list", content: "x".repeat(1001) };
    const one = { path: "a/list", content: "1 2 3" };
    const two = { path: "b/list", content: "1 2" };
    expect(await found([large, one, two])).toEqual({
      findings: [
        ["a/list", 3],
        ["b/list", 2],
      ],
      notes: [["content-too-large", "large/list"]],
    });
    expect(await found([one, two], { ...defaultLimits, keptLayerBytesMax: 6 })).toEqual({
      findings: [["a/list", 3]],
      notes: [["content-too-large", "b/list"]],
    });
  });
});
