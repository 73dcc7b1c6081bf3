import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { runWorkers } from "./run-workers.ts";
import { mountSmallVolume } from "./small-volume.ts";

const bytesMax = 3_000_000;

/** Random sizes, orders, abandoned and broken streams, several processes, kills: what lies on the disk never takes up more than the limit. */
export function limitSuite(seeds: readonly number[], processesInAll: number): void {
  const options = { bytesMax, processes: 3, processesInAll, operations: 60 };

  describe.each(seeds)("the limit, seed %i", (seed) => {
    it("holds for a directory, looked at all the time", async () => {
      const root = mkdtempSync(join(tmpdir(), "stowage-test-"));
      try {
        const report = await runWorkers({ ...options, directory: join(root, "anchore_layercache"), seed });
        console.log(`layer cache, seed ${seed}: ${JSON.stringify(report)}`);
        // A test that fills nothing proves nothing.
        expect(report.highest).toBeGreaterThan(bytesMax * 0.7);
        expect(report.looks).toBeGreaterThan(20);
      } finally {
        rmSync(root, { recursive: true, force: true });
      }
    });

    it("holds for a file system of its own, of which the kernel says what is taken up", async (context) => {
      using volume = mountSmallVolume(4 * bytesMax);
      if (volume === undefined) return context.skip("SKIPPED: no tmpfs can be mounted here");
      const directory = join(volume.path, "anchore_layercache");
      const report = await runWorkers({ ...options, directory, seed, use: volume.use });
      console.log(`layer cache on tmpfs, seed ${seed}: ${JSON.stringify(report)}`);
      expect(report.highest).toBeGreaterThan(bytesMax * 0.7);
    });
  });
}
