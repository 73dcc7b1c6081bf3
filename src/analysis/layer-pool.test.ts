import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildLayer } from "../../test/images/builder.ts";
import { defaultLimits } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import type { ImageLayer, LayerSource } from "../oci/index.ts";
import { createCall } from "../runtime/index.ts";
import { LayerPool } from "./layer-pool.ts";

const content = randomBytes(12 * 1024 * 1024);
const layer = buildLayer({ content: [{ path: "file", content }], compression: "none" });
const imageLayer = {
  descriptor: layer.descriptor,
  diffId: layer.diffId,
  compression: undefined,
  isForeign: false,
} as unknown as ImageLayer;

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "stowage-pool-"));
  // The blob lies somewhere in the file, as in an archive.
  await writeFile(join(directory, "blob"), Buffer.concat([Buffer.alloc(1000), layer.blob, Buffer.alloc(1000)]));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const unasked = { isAuthority: false, has: async () => true, recheck: async () => false };
const stream: LayerSource = {
  ...unasked,
  openFile: async () => undefined,
  open: async () => Readable.from([layer.blob.subarray(0, 100_000), layer.blob.subarray(100_000)]),
};
const file = (size: number, name = "blob", start = 1000): LayerSource => ({
  ...unasked,
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
    using analyzed = await pool.analyze(imageLayer, source, tell, createCall());
    expect(analyzed.facts).toMatchObject({ entries: 1, layerBytes: layer.tar.length });
    expect(told).toBe(layer.blob.length);
  });

  test("is left when the call is aborted; its thread has ended before its files are closed, and the next layer gets another", async () => {
    await using pool = new LayerPool(defaultLimits, directory);
    await using _hold = pool.hold();
    const stop = new AbortController();
    const reason = new StowageError("INPUT_INTERRUPTED", { what: "the test" });
    const aborted = pool.analyze(imageLayer, source, () => stop.abort(reason), createCall({ signal: stop.signal }));
    await expect(aborted).rejects.toBe(reason);
    using analyzed = await pool.analyze(imageLayer, source, () => {}, createCall());
    expect(analyzed.facts.entries).toBe(1);
  });
});

test("a file that ends early is an error of the source", async () => {
  await using pool = new LayerPool(defaultLimits, directory);
  await writeFile(join(directory, "cut"), layer.blob.subarray(0, -10));
  const cut = pool.analyze(imageLayer, file(layer.blob.length, "cut", 0), () => {}, createCall());
  await expect(cut).rejects.toMatchObject({ code: "IMAGE_SOURCE_UNREADABLE", details: { source: "a file" } });
});

describe("a source that fails on the way", () => {
  const failure = new StowageError("REGISTRY_UNREACHABLE", { host: "h", reason: "it went away" });
  async function* failing(bytes: Buffer) {
    // More than goes to a thread ahead.
    for (let at = 0; at < 6 * 1024 * 1024; at += 100_000) yield bytes.subarray(at, at + 100_000);
    throw failure;
  }
  const source = (bytes: Buffer): LayerSource => ({ ...stream, open: async () => Readable.from(failing(bytes)) });

  test("is what failed", async () => {
    await using pool = new LayerPool(defaultLimits, directory);
    const reading = pool.analyze(imageLayer, source(layer.blob), () => {}, createCall());
    await expect(reading).rejects.toBe(failure);
  });

  test("is not what is said of a layer that has shown to be damaged before", async () => {
    await using pool = new LayerPool(defaultLimits, directory);
    const damaged = Buffer.alloc(layer.blob.length, "no tar");
    const reading = pool.analyze(imageLayer, source(damaged), () => {}, createCall());
    await expect(reading).rejects.toMatchObject({ code: "LAYER_TAR_INVALID" });
  });
});

test("threads that were started before serve the first layer", async () => {
  await using pool = new LayerPool(defaultLimits, directory);
  pool.start();
  using analyzed = await pool.analyze(imageLayer, stream, () => {}, createCall());
  expect(analyzed.facts.diffId).toBe(`sha256:${createHash("sha256").update(layer.tar).digest("hex")}`);
});

describe("a layer that is read ahead", () => {
  test("is read once, and whoever asks for it is told of all of its bytes", async () => {
    await using pool = new LayerPool(defaultLimits, directory);
    let opened = 0;
    const source: LayerSource = {
      ...stream,
      async open(descriptor, call) {
        opened++;
        return await stream.open(descriptor, call);
      },
    };
    pool.readAhead([imageLayer, imageLayer], source, createCall());
    let told = 0;
    const tell = (bytes: number) => {
      told += bytes;
    };
    using analyzed = await pool.analyze(imageLayer, source, tell, createCall());
    expect(analyzed.facts).toMatchObject({ entries: 1 });
    expect(told).toBe(layer.blob.length);
    expect(opened).toBe(1);
  });

  test("fails for whoever asks for it; asked for again it is read anew", async () => {
    await using pool = new LayerPool(defaultLimits, directory);
    await using _hold = pool.hold();
    const failure = new StowageError("IMAGE_BLOB_MISSING", { digest: layer.descriptor.digest });
    pool.readAhead([imageLayer], { ...stream, open: () => Promise.reject(failure) }, createCall());
    await expect(pool.analyze(imageLayer, stream, () => {}, createCall())).rejects.toBe(failure);
    using analyzed = await pool.analyze(imageLayer, stream, () => {}, createCall());
    expect(analyzed.facts.entries).toBe(1);
  });

  test("is left when the call of whoever asks for it is aborted", async () => {
    await using pool = new LayerPool(defaultLimits, directory);
    const stop = new AbortController();
    const reason = new StowageError("INPUT_INTERRUPTED", { what: "the test" });
    const reading = Promise.withResolvers<void>();
    const body = new Readable({ read: () => reading.resolve() });
    pool.readAhead([imageLayer], { ...stream, open: async () => body }, createCall());
    const aborted = pool.analyze(imageLayer, stream, () => {}, createCall({ signal: stop.signal }));
    await reading.promise;
    stop.abort(reason);
    await expect(aborted).rejects.toBe(reason);
    expect(body.destroyed).toBe(true);
  });

  test("is given up with the threads when nobody has asked for it", async () => {
    const pool = new LayerPool(defaultLimits, directory);
    const reading = Promise.withResolvers<void>();
    const body = new Readable({ read: () => reading.resolve() });
    pool.readAhead([imageLayer], { ...stream, open: async () => body }, createCall());
    await reading.promise;
    await pool[Symbol.asyncDispose]();
    expect(body.destroyed).toBe(true);
  });
});
