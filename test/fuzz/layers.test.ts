import { describe, expect, it } from "vitest";
import { fuzzCorpus, fuzzLayers } from "./layers.ts";

describe("damaged layers", () => {
  it("are documents or errors of ours, in bounded memory", async () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    process.stderr.write(`fuzz: seed ${seed} (more: npm run test:fuzz -- --runs N --seed S)\n`);
    const { outcomes, peakGrowthMebibytes } = await fuzzLayers(seed, 150, fuzzCorpus());
    // Neither everything nor nothing gets through: then the damage would be of no use.
    expect(outcomes.read ?? 0).toBeGreaterThan(0);
    expect(outcomes.LAYER_TAR_INVALID ?? 0).toBeGreaterThan(0);
    expect(peakGrowthMebibytes).toBeLessThan(500);
  });
});
