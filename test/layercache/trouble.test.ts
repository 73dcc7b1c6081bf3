import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { CacheFiles } from "../../src/layercache/cache-files.ts";
import { type LayerCache, openLayerCache } from "../../src/layercache/index.ts";
import { createCall, silentProgress } from "../../src/runtime/index.ts";
import { failingFiles } from "./failing-files.ts";
import { ModelSource, modelLayer, readAll } from "./model-source.ts";
import { expectInOrder } from "./run-workers.ts";
import { mountSmallVolume, type SmallVolume } from "./small-volume.ts";

const call = createCall();
const bytesMax = 20_000_000;
const layers = Array.from({ length: 8 }, (_, seed) => modelLayer(seed, 400_000 + seed));
const source = new ModelSource(layers);

/** Reads all layers, which must come whatever the cache does. Returns how many came from it. */
async function readThem(cache: LayerCache): Promise<number> {
  const cached = cache.before(source);
  for (const layer of layers) {
    const read = async () => await readAll(await cached.open(layer.descriptor, call));
    // As an analysis does.
    const bytes = await read().catch(async (error: unknown) => {
      if (!(await cached.recheck(layer.descriptor, call))) throw error;
      return await read();
    });
    expect(bytes.equals(layer.bytes)).toBe(true);
  }
  return cached.hits;
}

async function open(directory: string, files?: CacheFiles) {
  const told: string[] = [];
  const tell = (text: string) => told.push(text);
  return { told, cache: await openLayerCache({ directory, bytesMax, tell, ...(files ? { files } : {}) }, call) };
}

/** A volume of a real file system, or else a directory and faults below the file calls. */
function start(bytes: number): { directory: string; volume: SmallVolume | undefined } & Disposable {
  const volume = mountSmallVolume(bytes);
  const root = volume?.path ?? mkdtempSync(join(tmpdir(), "stowage-test-"));
  return {
    volume,
    directory: join(root, "anchore_layercache"),
    [Symbol.dispose]: volume ? () => volume[Symbol.dispose]() : () => rmSync(root, { recursive: true, force: true }),
  };
}

function howOf(bytes: number): string {
  using ground = start(bytes);
  return ground.volume ? "a tmpfs" : "faults below the file calls; no tmpfs can be mounted here";
}
const how = howOf(100_000);

describe(`a full volume (${how})`, () => {
  it("is told once, and layers pass; what was kept before serves", async () => {
    const quota = 1_500_000;
    using ground = start(quota);
    let used = 0;
    const files = failingFiles((name, _path, bytes) => {
      if (name === "write") used += bytes;
      return used > quota ? "ENOSPC" : undefined;
    });
    const { told, cache } = await open(ground.directory, ground.volume ? undefined : files);
    {
      await using _ = cache;
      expect(await readThem(cache)).toBe(0);
      expect(told).toHaveLength(1);
      expect(told[0]).toMatch(/ENOSPC|full/);
      used = 0;
      const hits = await readThem(cache);
      expect(hits).toBeGreaterThan(0);
      expect(hits).toBeLessThan(layers.length);
      expect(told).toHaveLength(1);
      expect((await cache.verify(silentProgress, call)).damaged).toEqual([]);
      expect((await cache.stats(call)).bytesReserved).toBe(0);
    }
    await expectInOrder(ground.directory, bytesMax);
  });

  it("from the start is told once, and layers pass", async () => {
    using ground = start(4096);
    const { told, cache } = await open(ground.directory, ground.volume ? undefined : failingFiles(() => "ENOSPC"));
    await using _ = cache;
    expect(await readThem(cache)).toBe(0);
    expect(await readThem(cache)).toBe(0);
    expect(told).toHaveLength(1);
  });
});

describe(`a read-only volume (${how})`, () => {
  it("is told once, and layers pass", async () => {
    using ground = start(10_000_000);
    let isReadOnly = false;
    const files = failingFiles((name) => (isReadOnly && !["read", "open"].includes(name) ? "EROFS" : undefined));
    {
      await using cache = (await open(ground.directory)).cache;
      await readThem(cache);
    }
    ground.volume?.makeReadOnly();
    isReadOnly = true;
    const { told, cache } = await open(ground.directory, ground.volume ? undefined : files);
    await using _ = cache;
    await readThem(cache);
    await readThem(cache);
    expect(told).toHaveLength(1);
    await expect(cache.stats(call)).rejects.toMatchObject({ code: "LAYER_CACHE_UNUSABLE" });
  });
});

describe("a call that fails", () => {
  const calls = ["open", "truncate", "write", "rename", "unlink", "read", "mkdir", "chmod"] as const;
  const codes = ["EIO", "EDQUOT", "EACCES", "ENOENT"] as const;
  it.each(calls.flatMap((name) => codes.map((code) => [name, code] as const)))(
    "%s with %s costs the cache's service, not the layers, and is put in order afterwards",
    async (name, code) => {
      const root = mkdtempSync(join(tmpdir(), "stowage-test-"));
      try {
        const directory = join(root, "anchore_layercache");
        let calm = 3;
        const files = failingFiles((made) => (made === name && calm-- <= 0 ? code : undefined));
        const { told, cache } = await open(directory, files);
        {
          await using _ = cache;
          await readThem(cache);
          await readThem(cache);
          await cache
            .trim(0, call)
            .catch((error: unknown) => expect(error).toMatchObject({ code: "LAYER_CACHE_UNUSABLE" }));
          await readThem(cache);
        }
        // Once for each kind of trouble, and there is but one.
        expect(told.length).toBeLessThanOrEqual(1);
        await expectInOrder(directory, bytesMax);
      } finally {
        rmSync(root, { recursive: true, force: true });
      }
    },
  );
});
