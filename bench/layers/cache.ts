import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { withScratch } from "../contender.ts";
import { warmPageCache } from "../layout.ts";
import type { Measurement } from "../measure.ts";
import { megabytes, type Report, ratio, seconds } from "../report.ts";
import { median } from "../statistics.ts";
import { analyze, makePlace } from "./command.ts";
import type { Ground } from "./ground.ts";

const coldGoal = 1.1;
const warmGoal = 1;

interface Run extends Measurement {
  readonly pulledBytes: number;
}

/** What the layer cache's own work costs: one image, with nothing known of it. */
export async function benchCache(report: Report, ground: Ground, images: string, runs: number): Promise<void> {
  const { registry, family } = ground;
  const large = join(images, "large");
  const isLarge = images !== "" && existsSync(join(large, "index.json"));
  const { layout, tag } = isLarge
    ? { layout: large, tag: "large" }
    : { layout: family.layout, tag: family.tags[0] ?? "" };
  report.subheading(`Cost of the cache: ${isLarge ? "large" : `the first image of ${family.name}`}`);
  await warmPageCache(layout, tag);
  const reference = await registry.push(layout, tag);
  const filled = join(ground.scratch, "filled-cache");
  await withScratch(async (scratch) => analyze(await makePlace(scratch, { cache: filled }), [reference]));
  const ways = {
    none: { name: "registry, no cache", source: reference, cacheOf: () => undefined },
    cold: {
      name: "registry, through a cold cache",
      source: reference,
      cacheOf: (scratch: string) => join(scratch, "cache"),
    },
    warm: { name: "registry, from a warm cache", source: reference, cacheOf: () => filled },
    layout: { name: "OCI layout on the same disk", source: `oci:${layout}:${tag}`, cacheOf: () => undefined },
  };
  const names = ["none", "cold", "warm", "layout"] as const;
  const results: Record<(typeof names)[number], Run[]> = { none: [], cold: [], warm: [], layout: [] };
  for (let run = 0; run < runs; run++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(run + turn) % names.length] ?? "none";
      const { source, cacheOf } = ways[name];
      const measured = await withScratch(async (scratch) => {
        const cache = cacheOf(scratch);
        const place = await makePlace(scratch, cache === undefined ? {} : { cache });
        // Nobody waits for what another has left to be written.
        execFileSync("sync");
        const before = await registry.served();
        const measurement = await analyze(place, [source]);
        return { ...measurement, pulledBytes: (await registry.served()).bytes - before.bytes };
      });
      results[name].push(measured);
    }
  }
  const middle = (name: keyof typeof results, of: Exclude<keyof Run, "stdout">) =>
    median(results[name].map((run) => run[of]));
  report.table([
    ["a fresh data directory each time", "wall (median)", "least", "most", "CPU", "peak RSS", "pulled"],
    ...names.map((name) => {
      const walls = results[name].map(({ wallMs }) => wallMs);
      return [
        ways[name].name,
        seconds(middle(name, "wallMs")),
        seconds(Math.min(...walls)),
        seconds(Math.max(...walls)),
        seconds(middle(name, "cpuMs")),
        megabytes(middle(name, "peakRssBytes")),
        megabytes(middle(name, "pulledBytes")),
      ];
    }),
  ]);
  report.list([
    `medians of ${runs} runs in alternating order; the database made before, blobs in the page cache, the registry on the same processors`,
  ]);
  const cold = middle("cold", "wallMs") / middle("none", "wallMs");
  const warm = middle("warm", "wallMs") / middle("layout", "wallMs");
  report.goal(`cold cache: ≤ ${coldGoal} × without`, ratio(cold), cold <= coldGoal);
  report.goal(`warm cache: ≤ ${warmGoal} × an OCI layout`, ratio(warm), warm <= warmGoal);
}
