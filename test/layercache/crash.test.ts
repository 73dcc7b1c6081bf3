import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openLayerCache } from "../../src/layercache/index.ts";
import { createCall } from "../../src/runtime/index.ts";
import { diskUse } from "./disk-use.ts";
import { ModelSource, readAll } from "./model-source.ts";
import { expectInOrder, runWorker } from "./run-workers.ts";
import { layersOf, type WorkerTask } from "./worker.ts";

const bytesMax = 2_000_000;
/** In the order in which a layer meets them; `chunk` is in the middle of a download. */
const steps = [
  ["joined", 1],
  ["reserved", 2],
  ["chunk", 30],
  ["renamed", 3],
  ["ready", 2],
  ["condemned", 1],
  ["unlinked", 3],
  ["dropped", 2],
] as const;

describe("a process that is killed", () => {
  it.each(steps)("at `%s` leaves what the next one puts in order", async (step, nth) => {
    const root = mkdtempSync(join(tmpdir(), "stowage-test-"));
    const directory = join(root, "anchore_layercache");
    const seed = Date.now() % 1_000_000;
    console.log(`killed at ${step}, seed ${seed}`);
    const task: WorkerTask = {
      directory,
      bytesMax,
      seed,
      layersSeed: seed,
      layers: 24,
      layerBytesMax: 900_000,
      operations: 200,
    };
    const call = createCall();
    try {
      // One that lives meanwhile, and takes over the room of the dead when it needs it.
      await using living = await openLayerCache({ directory, bytesMax, tell: expectNothingTold }, call);
      expect(await runWorker({ ...task, killAt: { step, nth } })).toBeUndefined();
      expect(diskUse(directory)).toBeLessThanOrEqual(bytesMax);
      const layers = layersOf(task);
      const source = new ModelSource(layers);
      for (const layer of layers) {
        const bytes = await readAll(await living.before(source).open(layer.descriptor, call));
        expect(bytes.equals(layer.bytes)).toBe(true);
        expect(diskUse(directory)).toBeLessThanOrEqual(bytesMax);
      }
      await living.trim(0, call);
      const stats = await living.stats(call);
      expect(stats).toMatchObject({ entries: 0, bytesReserved: 0, entriesInUse: 0 });
      expect(["sha256", "partial"].flatMap((folder) => readdirSync(join(directory, folder)))).toEqual([]);
    } finally {
      await expectInOrder(directory, bytesMax);
      rmSync(root, { recursive: true, force: true });
    }
  });

  it("is waited for no longer by those who want what it was downloading", async () => {
    const root = mkdtempSync(join(tmpdir(), "stowage-test-"));
    const directory = join(root, "anchore_layercache");
    const task: WorkerTask = {
      directory,
      bytesMax,
      seed: 7,
      layersSeed: 7,
      layers: 1,
      layerBytesMax: 900_000,
      operations: 50,
    };
    const call = createCall();
    try {
      await using living = await openLayerCache({ directory, bytesMax, tell: expectNothingTold }, call);
      const [layer] = layersOf(task);
      if (!layer) throw new Error("no layer");
      expect(await runWorker({ ...task, killAt: { step: "chunk", nth: 1 } })).toBeUndefined();
      expect((await living.stats(call)).bytesReserved).toBeGreaterThan(0);
      const source = new ModelSource([layer]);
      const bytes = await readAll(await living.before(source).open(layer.descriptor, call));
      expect(bytes.equals(layer.bytes)).toBe(true);
      expect(source.opened).toHaveLength(1);
      await using file = await living.before(source).openFile(layer.descriptor, call);
      expect(file?.size).toBe(layer.descriptor.size);
    } finally {
      rmSync(root, { recursive: true, force: true });
    }
  });
});

function expectNothingTold(text: string): void {
  throw new Error(`trouble: ${text}`);
}
