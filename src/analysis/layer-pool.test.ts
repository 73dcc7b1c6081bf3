import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildLayer } from "../../test/images/builder.ts";
import { defaultLimits } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import type { ExpectedLayer } from "../layer/index.ts";
import { createCall } from "../runtime/index.ts";
import { type BlobSource, LayerPool } from "./layer-pool.ts";

const content = randomBytes(12 * 1024 * 1024);
const layer = buildLayer({ content: [{ path: "file", content }], compression: "none" });
const expected = {
  blobDigest: layer.descriptor.digest,
  blobBytes: layer.blob.length,
  diffId: layer.diffId,
  compression: undefined,
} as ExpectedLayer;

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "stowage-pool-"));
  // The blob lies somewhere in the file, as in an archive.
  await writeFile(join(directory, "blob"), Buffer.concat([Buffer.alloc(1000), layer.blob, Buffer.alloc(1000)]));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const stream: BlobSource = {
  openFile: async () => undefined,
  open: async () => Readable.from([layer.blob.subarray(0, 100_000), layer.blob.subarray(100_000)]),
};
const file = (size: number, name = "blob", start = 1000): BlobSource => ({
  async openFile() {
    const handle = await open(join(directory, name));
    const close = () => handle.close();
    return { description: "a file", descriptor: handle.fd, start, size, [Symbol.asyncDispose]: close };
  },
  open: () => Promise.reject(new Error("the file is enough")),
});

describe.each([
  ["a stream", stream],
  ["a file", file(layer.blob.length)],
])("a layer from %s", (_, source) => {
  test("is read, and all of its bytes are told", async () => {
    await using pool = new LayerPool(defaultLimits, directory);
    let told = 0;
    const tell = (bytes: number) => {
      told += bytes;
    };
    using analyzed = await pool.analyze(expected, "test", source, tell, createCall());
    expect(analyzed.facts).toMatchObject({ entries: 1, layerBytes: layer.tar.length });
    expect(told).toBe(layer.blob.length);
  });

  test("is left when the call is aborted; its thread has ended before its files are closed, and the next layer gets another", async () => {
    await using pool = new LayerPool(defaultLimits, directory);
    await using _hold = pool.hold();
    const stop = new AbortController();
    const reason = new StowageError("INPUT_INTERRUPTED", { what: "the test" });
    const aborted = pool.analyze(
      expected,
      "test",
      source,
      () => stop.abort(reason),
      createCall({ signal: stop.signal }),
    );
    await expect(aborted).rejects.toBe(reason);
    using analyzed = await pool.analyze(expected, "test", source, () => {}, createCall());
    expect(analyzed.facts.entries).toBe(1);
  });
});

test("a file that ends early is an error of the source", async () => {
  await using pool = new LayerPool(defaultLimits, directory);
  await writeFile(join(directory, "cut"), layer.blob.subarray(0, -10));
  const cut = pool.analyze(expected, "test", file(layer.blob.length, "cut", 0), () => {}, createCall());
  await expect(cut).rejects.toMatchObject({ code: "IMAGE_SOURCE_UNREADABLE", details: { source: "a file" } });
});

test("threads that were started before serve the first layer", async () => {
  await using pool = new LayerPool(defaultLimits, directory);
  pool.start();
  using analyzed = await pool.analyze(expected, "test", stream, () => {}, createCall());
  expect(analyzed.facts.diffId).toBe(`sha256:${createHash("sha256").update(layer.tar).digest("hex")}`);
});
