import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { failureOf } from "../../test/conformance/failure.ts";
import { layerSourceSuite } from "../../test/conformance/layer-source-suite.ts";
import { ManualClock } from "../../test/fault/manual-clock.ts";
import { createRandom } from "../../test/fault/random.ts";
import { diskUse } from "../../test/layercache/disk-use.ts";
import { hexOf, type ModelLayer, ModelSource, modelLayer, readAll } from "../../test/layercache/model-source.ts";
import { StowageError } from "../errors/index.ts";
import type { LayerSource } from "../oci/index.ts";
import { createCall, silentProgress } from "../runtime/index.ts";
import { costOf } from "./accounting.ts";
import { type CacheFiles, realCacheFiles } from "./cache-files.ts";
import { openLayerCache } from "./index.ts";
import type { LayerCache, LayerCacheOptions } from "./types.ts";

const call = createCall();
const megabyte = 1_000_000;
const layers = [1, 2, 3, 4, 5, 6].map((seed) => modelLayer(seed, 500_000 + seed));
const [first, second, third] = layers as [ModelLayer, ModelLayer, ModelLayer];

class Ground implements Disposable {
  readonly root = mkdtempSync(join(tmpdir(), "stowage-test-"));
  readonly directory = join(this.root, "anchore_layercache");
  readonly told: string[] = [];
  readonly source = new ModelSource(layers);

  open(bytesMax = 10 * megabyte, more: Partial<LayerCacheOptions> = {}): Promise<LayerCache> {
    return openLayerCache({ directory: this.directory, bytesMax, tell: (text) => this.told.push(text), ...more }, call);
  }

  entry(layer: ModelLayer): string {
    return join(this.directory, "sha256", hexOf(layer));
  }

  /** Gets a layer as an analysis does: from a file if there is one. */
  async read(cached: LayerSource, layer: ModelLayer): Promise<"hit" | "miss"> {
    await using file = await cached.openFile(layer.descriptor, call);
    if (file === undefined) {
      expect((await readAll(await cached.open(layer.descriptor, call))).equals(layer.bytes)).toBe(true);
      return "miss";
    }
    const bytes = Buffer.alloc(file.size);
    readSync(file.descriptor, bytes, 0, file.size, file.start);
    expect(bytes.equals(layer.bytes)).toBe(true);
    return "hit";
  }

  /** All that lies there is entries and what the index says of them. */
  async expectInOrder(cache: LayerCache): Promise<void> {
    const stats = await cache.stats(call);
    const verification = await cache.verify(silentProgress, call);
    expect(verification).toMatchObject({ damaged: [], entries: stats.entries });
    expect(readdirSync(join(this.directory, "sha256"))).toHaveLength(stats.entries);
    expect(readdirSync(join(this.directory, "partial"))).toEqual([]);
    expect(diskUse(this.directory)).toBeLessThanOrEqual(Math.min(stats.bytesCounted, stats.bytesMax));
  }

  [Symbol.dispose](): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}

describe("layer cache", () => {
  it("keeps what a source sent, and serves it to the next", async () => {
    using ground = new Ground();
    {
      await using cache = await ground.open();
      expect(await ground.read(cache.before(ground.source), first)).toBe("miss");
      expect(readFileSync(ground.entry(first)).equals(first.bytes)).toBe(true);
    }
    await using cache = await ground.open();
    const cached = cache.before(ground.source);
    expect(await ground.read(cached, first)).toBe("hit");
    expect(await ground.read(cached, first)).toBe("hit");
    expect((await readAll(await cached.open(first.descriptor, call))).equals(first.bytes)).toBe(true);
    expect(ground.source.opened).toEqual([first.descriptor.digest]);
    // A layer counts once for its image.
    expect([cached.hits, cached.bytesSaved]).toEqual([1, first.descriptor.size]);
    expect((await collect(cache.entries(call))).map(({ hits }) => hits)).toEqual([3]);
    expect(ground.told).toEqual([]);
    await ground.expectInOrder(cache);
  });

  it("lets local sources through untouched", async () => {
    using ground = new Ground();
    await using cache = await ground.open();
    const local: LayerSource = { ...plain(ground.source), isAuthority: false };
    await readAll(await cache.before(local).open(first.descriptor, call));
    expect((await cache.stats(call)).entries).toBe(0);
  });

  it("asks the source with the requester's rights before it serves what another fetched", async () => {
    using ground = new Ground();
    await using cache = await ground.open();
    await ground.read(cache.before(ground.source), first);
    const stranger = new ModelSource(layers);
    stranger.isDenied = true;
    const cached = cache.before(stranger);
    expect(await cached.openFile(first.descriptor, call)).toBeUndefined();
    expect((await failureOf(cached.open(first.descriptor, call))).code).toBe("ACCESS_DENIED");
    expect(stranger.asked.length).toBeGreaterThan(0);
    expect(cached.hits).toBe(0);
    const friend = new ModelSource(layers);
    expect(await ground.read(cache.before(friend), first)).toBe("hit");
    expect(friend.asked).toEqual([first.descriptor.digest]);
  });

  it("leaves it to the source whether a layer comes that it can't be asked about", async () => {
    using ground = new Ground();
    await using cache = await ground.open();
    await ground.read(cache.before(ground.source), first);
    const odd: LayerSource = {
      ...plain(ground.source),
      has: () => Promise.reject(new StowageError("REGISTRY_REFUSED", { host: "model.test", status: 405 })),
    };
    expect(await ground.read(cache.before(odd), first)).toBe("miss");
    expect(ground.source.opened).toHaveLength(2);
    expect(ground.told).toEqual([]);
  });

  it("does not let a stranger wait for another's download", async () => {
    using ground = new Ground();
    await using cache = await ground.open();
    const gate = Promise.withResolvers<void>();
    ground.source.onChunk = () => gate.promise;
    const download = readAll(await cache.before(ground.source).open(first.descriptor, call));
    const stranger = new ModelSource(layers);
    stranger.isDenied = true;
    expect((await failureOf(cache.before(stranger).open(first.descriptor, call))).code).toBe("ACCESS_DENIED");
    gate.resolve();
    await download;
  });

  it("joins downloads of one layer", async () => {
    using ground = new Ground();
    await using one = await ground.open();
    await using other = await ground.open();
    const gate = Promise.withResolvers<void>();
    ground.source.onChunk = () => gate.promise;
    const caches = [one, other, one, other, one, other];
    const sources = caches.map((cache) => cache.before(ground.source));
    const reads = sources.map(async (cached) => await readAll(await cached.open(first.descriptor, call)));
    const files = sources.map(async (cached) => {
      // Before any download begins there is none to wait for.
      while (ground.source.opened.length === 0) await new Promise((resolve) => setImmediate(resolve));
      await using file = await cached.openFile(first.descriptor, call);
      return file?.size;
    });
    while (ground.source.asked.length < 5) await new Promise((resolve) => setImmediate(resolve));
    gate.resolve();
    for (const bytes of await Promise.all(reads)) expect(bytes.equals(first.bytes)).toBe(true);
    expect(await Promise.all(files)).toEqual(files.map(() => first.descriptor.size));
    expect(ground.source.opened).toEqual([first.descriptor.digest]);
    await ground.expectInOrder(one);
  });

  it("lets another take over a download that failed", async () => {
    using ground = new Ground();
    await using cache = await ground.open();
    const gate = Promise.withResolvers<void>();
    ground.source.onChunk = async (position) => {
      await gate.promise;
      if (position > 100_000 && ground.source.opened.length === 1) throw new Error("the connection broke");
    };
    const failing = readAll(await cache.before(ground.source).open(first.descriptor, call));
    const waiting = cache.before(ground.source).open(first.descriptor, call).then(readAll);
    while (ground.source.asked.length < 1) await new Promise((resolve) => setImmediate(resolve));
    gate.resolve();
    await expect(failing).rejects.toThrow("the connection broke");
    expect((await waiting).equals(first.bytes)).toBe(true);
    expect(ground.source.opened).toHaveLength(2);
    await ground.expectInOrder(cache);
  });

  it("waits no longer than its call lasts", async () => {
    using ground = new Ground();
    await using cache = await ground.open();
    const gate = Promise.withResolvers<void>();
    ground.source.onChunk = () => gate.promise;
    const download = readAll(await cache.before(ground.source).open(first.descriptor, call));
    const controller = new AbortController();
    const asked = ground.source.asked.length;
    const waiting = cache.before(ground.source).open(first.descriptor, createCall({ signal: controller.signal }));
    while (ground.source.asked.length === asked) await new Promise((resolve) => setImmediate(resolve));
    const reason = new StowageError("INPUT_INTERRUPTED", { what: "the test" });
    controller.abort(reason);
    expect(await failureOf(waiting)).toBe(reason);
    gate.resolve();
    await download;
  });

  it.each([
    ["is abandoned", async (stream: AsyncIterable<unknown>) => void (await collect(takeOne(stream)))],
    [
      "is destroyed before its first byte",
      async (stream: AsyncIterable<unknown> & { destroy(): void }) => stream.destroy(),
    ],
  ])("keeps nothing of a stream that %s", async (_, leave) => {
    using ground = new Ground();
    await using cache = await ground.open();
    const stream = await cache.before(ground.source).open(first.descriptor, call);
    const closed = new Promise((resolve) => stream.once("close", resolve));
    await leave(stream);
    await closed;
    expect((await cache.stats(call)).bytesReserved).toBe(0);
    await ground.expectInOrder(cache);
    expect(await ground.read(cache.before(ground.source), first)).toBe("miss");
  });

  it.each([
    ["other bytes", (bytes: Buffer) => Buffer.from(bytes).fill(7, 1000, 1001)],
    ["fewer bytes", (bytes: Buffer) => bytes.subarray(1)],
    ["more bytes", (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(200_000)])],
  ])("keeps no %s than announced, and hands them on as they are", async (_, sent) => {
    using ground = new Ground();
    await using cache = await ground.open();
    ground.source.sent = sent;
    const cached = cache.before(ground.source);
    const bytes = await readAll(await cached.open(first.descriptor, call));
    expect(bytes.equals(sent(first.bytes))).toBe(true);
    // The source sent them: opening again would bring the same.
    expect(await cached.recheck(first.descriptor, call)).toBe(false);
    expect((await cache.stats(call)).entries).toBe(0);
    await ground.expectInOrder(cache);
  });

  it("keeps a layer whose reader has all bytes and does not wait for the end", async () => {
    using ground = new Ground();
    await using cache = await ground.open();
    const end = Promise.withResolvers<void>();
    ground.source.onChunk = (position) => (position === first.bytes.length ? end.promise : undefined);
    const stream = await cache.before(ground.source).open(first.descriptor, call);
    let length = 0;
    for await (const chunk of stream) {
      length += (chunk as Buffer).length;
      if (length === first.bytes.length) break;
    }
    end.resolve();
    if (!stream.closed) await new Promise((resolve) => stream.once("close", resolve));
    expect(await ground.read(cache.before(ground.source), first)).toBe("hit");
    await ground.expectInOrder(cache);
  });

  describe("an entry that is not what it should be", () => {
    it("is looked at when reading it failed, dropped, and fetched again", async () => {
      using ground = new Ground();
      await using cache = await ground.open();
      await ground.read(cache.before(ground.source), first);
      const bytes = readFileSync(ground.entry(first));
      bytes[1234] = (bytes[1234] as number) ^ 1;
      writeFileSync(ground.entry(first), bytes);
      const cached = cache.before(ground.source);
      await (await cached.openFile(first.descriptor, call))?.[Symbol.asyncDispose]();
      expect(cached.hits).toBe(1);
      expect(await cached.recheck(first.descriptor, call)).toBe(true);
      expect([cached.hits, cached.bytesSaved]).toEqual([0, 0]);
      expect(existsSync(ground.entry(first))).toBe(false);
      expect(await ground.read(cached, first)).toBe("miss");
      expect(await ground.read(cached, first)).toBe("hit");
      // Sound bytes were read to no good end: the image is wrong.
      expect(await cached.recheck(first.descriptor, call)).toBe(false);
      await ground.expectInOrder(cache);
    });

    it("keeps its room as long as another reads it", async () => {
      using ground = new Ground();
      await using cache = await ground.open();
      await ground.read(cache.before(ground.source), first);
      writeFileSync(ground.entry(first), Buffer.alloc(first.descriptor.size));
      const cached = cache.before(ground.source);
      await (await cached.openFile(first.descriptor, call))?.[Symbol.asyncDispose]();
      const reader = await cache.before(ground.source).openFile(first.descriptor, call);
      expect(await cached.recheck(first.descriptor, call)).toBe(true);
      const before = await cache.stats(call);
      expect(before.bytesCounted).toBeGreaterThan(first.descriptor.size);
      expect(existsSync(ground.entry(first))).toBe(true);
      // Meanwhile the layer passes.
      expect(await ground.read(cached, first)).toBe("miss");
      await reader?.[Symbol.asyncDispose]();
      expect(existsSync(ground.entry(first))).toBe(false);
      expect((await cache.stats(call)).bytesCounted).toBeLessThan(before.bytesCounted - first.descriptor.size);
      expect(await ground.read(cached, first)).toBe("miss");
      expect(await ground.read(cached, first)).toBe("hit");
    });

    it.each([
      ["truncated", (path: string) => truncateSync(path, 1000)],
      ["longer", (path: string) => writeFileSync(path, "more", { flag: "a" })],
      ["gone", (path: string) => rmSync(path)],
      [
        "a directory",
        (path: string) => {
          rmSync(path);
          mkdirSync(path);
          writeFileSync(join(path, "photo"), Buffer.alloc(100_000));
        },
      ],
      [
        "a symbolic link",
        (path: string) => {
          renameSync(path, `${path}.bytes`);
          symlinkSync(`${path}.bytes`, path);
        },
      ],
      ["of two names", (path: string) => linkSync(path, join(path, "../../../linked"))],
    ])("is a miss at once when it is %s", async (name, spoil) => {
      using ground = new Ground();
      await using cache = await ground.open();
      await ground.read(cache.before(ground.source), first);
      spoil(ground.entry(first));
      expect(await ground.read(cache.before(ground.source), first)).toBe("miss");
      if (name === "a directory") {
        // Not the cache's, and in its way: that layer is never kept, and the rest goes on.
        expect(ground.told).toHaveLength(1);
        expect(await ground.read(cache.before(ground.source), first)).toBe("miss");
        expect(await ground.read(cache.before(ground.source), second)).toBe("miss");
        expect(await ground.read(cache.before(ground.source), second)).toBe("hit");
        expect((await cache.stats(call)).bytesForeign).toBeGreaterThan(100_000);
        expect(existsSync(join(ground.entry(first), "photo"))).toBe(true);
        return;
      }
      expect(await ground.read(cache.before(ground.source), first)).toBe("hit");
      expect(ground.told).toEqual([]);
    });

    it("is found by verify, which says which", async () => {
      using ground = new Ground();
      await using cache = await ground.open();
      for (const layer of [first, second, third]) await ground.read(cache.before(ground.source), layer);
      writeFileSync(ground.entry(first), Buffer.alloc(first.descriptor.size));
      truncateSync(ground.entry(second), 5);
      writeFileSync(join(ground.directory, "sha256/notes.txt"), "mine");
      mkdirSync(join(ground.directory, "photos"));
      writeFileSync(join(ground.directory, "photos/one"), Buffer.alloc(10_000));
      const { damaged, foreign, entries } = await cache.verify(silentProgress, call);
      expect(entries).toBe(3);
      expect(damaged.map(({ digest }) => digest).sort()).toEqual(
        [first.descriptor.digest, second.descriptor.digest].sort(),
      );
      expect([...foreign].sort()).toEqual(["photos", "photos/one", "sha256/notes.txt"]);
      const stats = await cache.stats(call);
      expect(stats.entries).toBe(1);
      expect(stats.bytesForeign).toBeGreaterThanOrEqual(14_000);
      expect(existsSync(ground.entry(first))).toBe(false);
      expect(existsSync(join(ground.directory, "photos/one"))).toBe(true);
      expect((await cache.verify(silentProgress, call)).damaged).toEqual([]);
    });
  });

  describe("the limit", () => {
    it("drops what was used least recently", async () => {
      using ground = new Ground();
      await using cache = await ground.open(2 * megabyte);
      const cached = cache.before(ground.source);
      for (const layer of [first, second, third]) expect(await ground.read(cached, layer)).toBe("miss");
      await ground.expectInOrder(cache);
      expect(await ground.read(cached, first)).toBe("hit");
      await ground.read(cached, layers[3] as ModelLayer);
      expect(await ground.read(cached, first)).toBe("hit");
      expect(await ground.read(cached, second)).toBe("miss");
      await ground.expectInOrder(cache);
    });

    const seed = Date.now() % 1_000_000;
    it(`keeps exactly what a list in order of use would keep, seed ${seed}`, async () => {
      using ground = new Ground();
      const random = createRandom(seed);
      const several = Array.from({ length: 12 }, (_, place) => modelLayer(place, 1 + random.integer(600_000)));
      const source = new ModelSource(several);
      const bytesMax = 2 * megabyte;
      const clock = new ManualClock();
      await using cache = await ground.open(bytesMax, { clock });
      const { bytesCounted: overhead } = await cache.stats(call);
      let kept: ModelLayer[] = [];
      const costs = () => kept.reduce((sum, { bytes }) => sum + costOf(bytes.length, 4096), 0);
      for (let turn = 0; turn < 150; turn++) {
        await clock.advance(1);
        const layer = random.pick(several);
        expect(await ground.read(cache.before(source), layer)).toBe(kept.includes(layer) ? "hit" : "miss");
        kept = kept.filter((other) => other !== layer);
        while (costs() + costOf(layer.bytes.length, 4096) > bytesMax - overhead) kept.shift();
        kept.push(layer);
      }
      expect((await collect(cache.entries(call))).map(({ digest }) => digest)).toEqual(
        kept.map(({ descriptor }) => descriptor.digest),
      );
    });

    it("lets a layer that is larger than the cache pass, and drops nothing for it", async () => {
      using ground = new Ground();
      await using cache = await ground.open(2 * megabyte);
      const large = modelLayer(99, 3 * megabyte);
      const source = new ModelSource([...layers, large]);
      await ground.read(cache.before(source), first);
      expect(await ground.read(cache.before(source), large)).toBe("miss");
      expect(await ground.read(cache.before(source), large)).toBe("miss");
      expect(await ground.read(cache.before(source), first)).toBe("hit");
      expect(ground.told).toEqual([]);
    });

    it("keeps what is open, and lets layers pass that have no room beside it", async () => {
      using ground = new Ground();
      await using cache = await ground.open(2 * megabyte);
      const cached = cache.before(ground.source);
      for (const layer of [first, second, third]) await ground.read(cached, layer);
      const open = await Promise.all([first, second, third].map((layer) => cached.openFile(layer.descriptor, call)));
      expect(await ground.read(cached, layers[3] as ModelLayer)).toBe("miss");
      expect((await cache.clear(call)).entriesInUse).toBe(3);
      for (const file of open) await file?.[Symbol.asyncDispose]();
      expect(await cache.clear(call)).toEqual({
        entries: 3,
        bytes: [first, second, third].reduce((sum, { descriptor }) => sum + descriptor.size, 0),
        entriesInUse: 0,
      });
      await ground.expectInOrder(cache);
    });

    it("drops others than the one that is open, though it was used least recently", async () => {
      using ground = new Ground();
      await using cache = await ground.open(2 * megabyte);
      const cached = cache.before(ground.source);
      for (const layer of [first, second, third]) await ground.read(cached, layer);
      const file = await cached.openFile(first.descriptor, call);
      for (const layer of [second, third]) expect(await ground.read(cached, layer)).toBe("hit");
      await ground.read(cached, layers[3] as ModelLayer);
      expect([first, second, third].map((layer) => existsSync(ground.entry(layer)))).toEqual([true, false, true]);
      await file?.[Symbol.asyncDispose]();
      await ground.expectInOrder(cache);
    });

    it("gives room away when the file that had it is gone, not when it is about to go", async () => {
      using ground = new Ground();
      const gate = Promise.withResolvers<void>();
      const asked = Promise.withResolvers<void>();
      const files: CacheFiles = {
        ...realCacheFiles,
        async unlink(path) {
          asked.resolve();
          await gate.promise;
          await realCacheFiles.unlink(path);
        },
      };
      await using cache = await ground.open(2 * megabyte, { files });
      await using other = await ground.open(2 * megabyte);
      for (const layer of [first, second, third]) await ground.read(cache.before(ground.source), layer);
      const read = ground.read(cache.before(ground.source), layers[3] as ModelLayer);
      await asked.promise;
      try {
        for (let turns = 0; turns < 100; turns++) {
          expect(diskUse(ground.directory)).toBeLessThanOrEqual(2 * megabyte);
          expect((await other.stats(call)).bytesCounted).toBeLessThanOrEqual(2 * megabyte);
        }
      } finally {
        gate.resolve();
      }
      expect(await read).toBe("miss");
      expect(existsSync(ground.entry(layers[3] as ModelLayer))).toBe(true);
      await ground.expectInOrder(cache);
    });

    it("may be none for who looks after the cache: then what is there counts", async () => {
      using ground = new Ground();
      {
        await using cache = await ground.open();
        for (const layer of layers) await ground.read(cache.before(ground.source), layer);
      }
      await using cache = await ground.open(2e15);
      const { bytesCounted, entries } = await cache.stats(call);
      expect(entries).toBe(6);
      expect(bytesCounted).toBeGreaterThan(diskUse(ground.directory));
      expect(bytesCounted).toBeLessThan(diskUse(ground.directory) + megabyte);
      expect(await cache.trim(bytesCounted - 1, call)).toMatchObject({ entries: 1 });
      expect(await cache.trim(2 * megabyte, call)).toMatchObject({ entries: 3 });
      expect(diskUse(ground.directory)).toBeLessThan(2 * megabyte);
      expect((await cache.stats(call)).bytesCounted).toBeLessThan(2 * megabyte);
    });

    it("holds at once after a restart with a smaller one", async () => {
      using ground = new Ground();
      {
        await using cache = await ground.open(10 * megabyte);
        for (const layer of layers) await ground.read(cache.before(ground.source), layer);
        expect((await cache.stats(call)).entries).toBe(6);
      }
      expect(diskUse(ground.directory)).toBeGreaterThan(2 * megabyte);
      await using cache = await ground.open(2 * megabyte);
      expect(diskUse(ground.directory)).toBeLessThanOrEqual(2 * megabyte);
      await ground.expectInOrder(cache);
      expect(await ground.read(cache.before(ground.source), layers[5] as ModelLayer)).toBe("hit");
    });

    it("is the smallest of those of all who use the cache", async () => {
      using ground = new Ground();
      await using large = await ground.open(10 * megabyte);
      for (const layer of layers) await ground.read(large.before(ground.source), layer);
      {
        await using small = await ground.open(2 * megabyte);
        for (const layer of layers) await ground.read(large.before(ground.source), layer);
        expect(diskUse(ground.directory)).toBeLessThanOrEqual(2 * megabyte);
        expect((await small.stats(call)).bytesMax).toBe(2 * megabyte);
      }
      expect((await large.stats(call)).bytesMax).toBe(10 * megabyte);
    });

    it("counts files of others", async () => {
      using ground = new Ground();
      mkdirSync(join(ground.directory, "photos"), { recursive: true });
      writeFileSync(join(ground.directory, "photos/one"), Buffer.alloc(1.7 * megabyte));
      await using cache = await ground.open(2 * megabyte);
      expect(await ground.read(cache.before(ground.source), first)).toBe("miss");
      expect(await ground.read(cache.before(ground.source), first)).toBe("miss");
      expect(diskUse(ground.directory)).toBeLessThanOrEqual(2 * megabyte);
      expect(existsSync(join(ground.directory, "photos/one"))).toBe(true);
    });

    it("bounds the number of small layers too", async () => {
      using ground = new Ground();
      const small = Array.from({ length: 100 }, (_, seed) => modelLayer(seed, 50));
      const source = new ModelSource(small);
      await using cache = await ground.open(2 * megabyte);
      for (const layer of small) await ground.read(cache.before(source), layer);
      const { entries } = await cache.stats(call);
      expect(entries).toBeGreaterThan(20);
      expect(entries).toBeLessThan(50);
      await ground.expectInOrder(cache);
    });
  });

  describe("what it finds", () => {
    it("takes over blobs that another program left, by the time they were changed", async () => {
      using ground = new Ground();
      mkdirSync(join(ground.directory, "sha256"), { recursive: true });
      layers.forEach((layer, place) => {
        writeFileSync(ground.entry(layer), layer.bytes);
        utimesSync(ground.entry(layer), 1000 + place, 1000 + place);
      });
      await using cache = await ground.open(2 * megabyte);
      const kept = await collect(cache.entries(call));
      expect(kept.map(({ digest }) => digest)).toEqual(layers.slice(-3).map(({ descriptor }) => descriptor.digest));
      expect(kept.map(({ lastUsed }) => lastUsed.getTime())).toEqual([1_003_000, 1_004_000, 1_005_000]);
      expect(await ground.read(cache.before(ground.source), layers[5] as ModelLayer)).toBe("hit");
      await ground.expectInOrder(cache);
    });

    it("believes no file its name", async () => {
      using ground = new Ground();
      mkdirSync(join(ground.directory, "sha256"), { recursive: true });
      writeFileSync(ground.entry(first), Buffer.alloc(first.descriptor.size));
      await using cache = await ground.open();
      const cached = cache.before(ground.source);
      await (await cached.openFile(first.descriptor, call))?.[Symbol.asyncDispose]();
      expect(await cached.recheck(first.descriptor, call)).toBe(true);
      expect(await ground.read(cached, first)).toBe("miss");
    });

    it("follows no link that was planted under a digest", async () => {
      using ground = new Ground();
      mkdirSync(join(ground.directory, "sha256"), { recursive: true });
      const secret = join(ground.root, "secret");
      writeFileSync(secret, first.bytes);
      symlinkSync(secret, ground.entry(first));
      linkSync(secret, ground.entry(second));
      await using cache = await ground.open();
      expect((await cache.stats(call)).entries).toBe(0);
      expect(await ground.read(cache.before(ground.source), first)).toBe("miss");
      expect(readFileSync(secret).equals(first.bytes)).toBe(true);
      expect(statSync(secret).isFile()).toBe(true);
    });

    it.each([
      [
        "no database",
        (path: string) => writeFileSync(path, "this is no database at all, whatever its name says".repeat(200)),
      ],
      ["empty", (path: string) => writeFileSync(path, "")],
      ["cut off", (path: string) => truncateSync(path, 5000)],
      [
        "spoiled in its middle",
        (path: string) => {
          const bytes = readFileSync(path);
          writeFileSync(path, bytes.fill(0xee, 4096));
        },
      ],
    ])("makes an index anew that is %s", async (_, spoil) => {
      using ground = new Ground();
      {
        await using cache = await ground.open();
        await ground.read(cache.before(ground.source), first);
      }
      spoil(join(ground.directory, "index.sqlite"));
      await using cache = await ground.open();
      expect(ground.told).toEqual([]);
      expect(await ground.read(cache.before(ground.source), first)).toBe("hit");
      await ground.expectInOrder(cache);
    });

    it("makes an index anew that is spoiled while it is in use, once nobody uses it any more", async () => {
      using ground = new Ground();
      await using cache = await ground.open();
      const other = await ground.open();
      await ground.read(cache.before(ground.source), first);
      // By another process: this one's locks would go with the descriptor.
      const spoil = "fs.writeFileSync(process.argv[1], Buffer.alloc(40000, 0xee))";
      execFileSync(process.execPath, ["-e", spoil, join(ground.directory, "index.sqlite")]);
      for (const layer of layers) expect(await ground.read(cache.before(ground.source), layer)).toBe("miss");
      expect(ground.told).toHaveLength(1);
      expect(ground.told[0]).toMatch(/index.*not a database/);
      await other[Symbol.asyncDispose]();
      // What a layer is called is enough to find it again.
      expect(await ground.read(cache.before(ground.source), first)).toBe("hit");
      expect(await ground.read(cache.before(ground.source), second)).toBe("miss");
      expect(await ground.read(cache.before(ground.source), second)).toBe("hit");
      await ground.expectInOrder(cache);
    });

    it("counts files that others put there later", async () => {
      using ground = new Ground();
      const clock = new ManualClock();
      await using cache = await ground.open(2 * megabyte, { clock });
      await ground.read(cache.before(ground.source), first);
      writeFileSync(join(ground.directory, "photo"), Buffer.alloc(megabyte));
      await clock.advance(3_600_000);
      for (const layer of layers) await ground.read(cache.before(ground.source), layer);
      expect(diskUse(ground.directory)).toBeLessThanOrEqual(2 * megabyte);
      expect(diskUse(ground.directory)).toBeGreaterThan(1.4 * megabyte);
    });

    it("is closed to other users", async () => {
      using ground = new Ground();
      mkdirSync(ground.directory, { mode: 0o755 });
      chmodSync(ground.directory, 0o777);
      await using _ = await ground.open();
      for (const path of ["", "sha256", "partial", "owners"]) {
        expect(statSync(join(ground.directory, path)).mode & 0o777).toBe(0o700);
      }
    });
  });

  describe("trouble", () => {
    it("with the place is told once, and layers pass", async () => {
      using ground = new Ground();
      symlinkSync(ground.root, ground.directory);
      await using cache = await ground.open();
      for (const layer of [first, first, second]) {
        expect(await ground.read(cache.before(ground.source), layer)).toBe("miss");
      }
      expect(ground.told).toHaveLength(1);
      expect(ground.told[0]).toContain(ground.directory);
      const error = await failureOf(cache.stats(call));
      expect(error.code).toBe("LAYER_CACHE_UNUSABLE");
      expect(readdirSync(ground.root)).toEqual(["anchore_layercache"]);
    });

    it("with a directory that vanishes is told once, and the cache is back for a later image", async () => {
      using ground = new Ground();
      await using cache = await ground.open();
      const cached = cache.before(ground.source);
      expect(await ground.read(cached, first)).toBe("miss");
      rmSync(ground.directory, { recursive: true });
      for (const layer of [first, second, third]) expect(await ground.read(cached, layer)).toBe("miss");
      expect(ground.told).toHaveLength(1);
      await ground.read(cache.before(ground.source), first);
      expect(await ground.read(cache.before(ground.source), first)).toBe("hit");
      await ground.expectInOrder(cache);
    });

    it("of a directory that vanishes during a download is not the download's", async () => {
      using ground = new Ground();
      await using cache = await ground.open();
      ground.source.onChunk = (position) => {
        if (position > 100_000) rmSync(ground.directory, { recursive: true, force: true });
      };
      expect(await ground.read(cache.before(ground.source), first)).toBe("miss");
      expect(ground.told).toHaveLength(1);
    });
  });
});

/** A second reader finds the layers there. */
async function cachedSubject(isWarm: boolean) {
  const ground = new Ground();
  const cache = await ground.open();
  if (isWarm) for (const layer of layers) await ground.read(cache.before(ground.source), layer);
  const checking = checkSizes(ground.source);
  return {
    source: { ...plain(cache.before(checking)), openFile: async () => undefined },
    layers: layers.map(({ descriptor }) => descriptor),
    async [Symbol.asyncDispose]() {
      await cache[Symbol.asyncDispose]();
      ground[Symbol.dispose]();
    },
  };
}
layerSourceSuite("a registry behind an empty cache", () => cachedSubject(false));
layerSourceSuite("a registry behind a full cache", () => cachedSubject(true));

/** As a registry does. */
function checkSizes(source: ModelSource): LayerSource {
  return {
    ...plain(source),
    async open(layer, openCall) {
      const actual = layers.find(({ descriptor }) => descriptor.digest === layer.digest)?.descriptor.size;
      if (actual !== undefined && actual !== layer.size) {
        throw new StowageError("IMAGE_SIZE_MISMATCH", { what: "layer", expected: layer.size, actual });
      }
      return await source.open(layer, openCall);
    },
  };
}

function plain(source: LayerSource): LayerSource {
  return {
    isAuthority: source.isAuthority,
    open: (layer, openCall) => source.open(layer, openCall),
    openFile: (layer, openCall) => source.openFile(layer, openCall),
    has: (layer, openCall) => source.has(layer, openCall),
    recheck: (layer, openCall) => source.recheck(layer, openCall),
  };
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const collected: T[] = [];
  for await (const item of items) collected.push(item);
  return collected;
}

async function* takeOne(stream: AsyncIterable<unknown>) {
  for await (const chunk of stream) {
    yield chunk;
    return;
  }
}
