import { type Ceiling, jobs, measureCeiling } from "./ceiling.ts";
import { type Contender, runOnce, withScratch } from "./contender.ts";
import { type BenchImage, readLayers } from "./layout.ts";
import type { Measurement } from "./measure.ts";
import { findPeers } from "./peers.ts";
import { megabytes, type Report, ratio, seconds } from "./report.ts";
import { median } from "./statistics.ts";
import { coldStowage, parseReport, stowageWithDatabase } from "./stowage.ts";

interface Result {
  readonly contender: Contender;
  readonly measurements: Measurement[];
}

/** What the goals compare each peer by: times faster than it, and the share of its memory allowed. They are stated for the large image. */
const peerGoals = [
  { peer: "Trivy", timesFaster: 1.8, memoryShare: 1 },
  { peer: "Syft", timesFaster: 3, memoryShare: 0.25 },
];
const ceilingGoal = 1.3;
const imageOfGoals = "large";

/** Wall time and memory against the ceiling of the hardware and against peers, all in this run. */
export async function benchSpeed(
  report: Report,
  image: BenchImage,
  peerDirectories: readonly string[],
  runs: number,
): Promise<void> {
  report.subheading(`Speed: ${image.name}`);
  const layers = await readLayers(image.layout, image.tag);
  const ceiling = await withScratch((scratch) => measureCeiling(layers, runs, scratch));
  tellCeiling(report, ceiling);

  const { found, missing } = findPeers(peerDirectories);
  for (const peer of missing) report.leftOut(peer);
  const results: Result[] = [coldStowage, stowageWithDatabase, ...found].map((contender) => ({
    contender,
    measurements: [],
  }));
  for (let run = 0; run < runs; run++) {
    // Each goes first in turn, so that none always runs on a machine that another has just heated or emptied.
    for (let turn = 0; turn < results.length; turn++) {
      const result = results[(run + turn) % results.length];
      if (result) result.measurements.push(await runOnce(result.contender, image));
    }
  }
  tellResults(report, results, ceiling);
  compare(report, image, results, ceiling);
}

function tellCeiling(report: Report, ceiling: Ceiling): void {
  report.table([
    ["layer", "blob", "tar", ...jobs, "CPU time"],
    ...ceiling.layers.map(({ layer, tarBytes, jobs: times, totalMs }) => [
      layer.digest.slice(7, 19),
      megabytes(layer.sizeBytes),
      megabytes(tarBytes),
      ...jobs.map((job) => seconds(times[job])),
      seconds(totalMs),
    ]),
  ]);
  report.list([
    ...ceiling.choices.map((choice) => `fastest here: ${choice}`),
    "not tried: native hashing of several files at once (isa-l_crypto, which has no command); stowage does it with MD5 of short files, in WebAssembly",
    `bound: ${seconds(ceiling.boundMs)}, the greater of ${seconds(ceiling.totalMs)} on ${ceiling.cores} cores and the longest layer's ${seconds(ceiling.longestLayerMs)}`,
  ]);
}

function tellResults(report: Report, results: readonly Result[], ceiling: Ceiling): void {
  report.table([
    ["cold", "wall (median)", "least", "most", "CPU", "peak RSS", "its database", "wall by bound"],
    ...results.map(({ contender, measurements }) => {
      const walls = measurements.map(({ wallMs }) => wallMs);
      const database = median(measurements.map((one) => one.databasePeakRssBytes));
      return [
        contender.name,
        seconds(median(walls)),
        seconds(Math.min(...walls)),
        seconds(Math.max(...walls)),
        seconds(median(measurements.map(({ cpuMs }) => cpuMs))),
        megabytes(median(measurements.map(({ peakRssBytes }) => peakRssBytes))),
        database === 0 ? "–" : megabytes(database),
        ratio(median(walls) / ceiling.boundMs),
      ];
    }),
  ]);
  report.list(results.map(({ contender }) => `${contender.name}: ${contender.remark}`));
  report.list([
    "all: medians of cold runs (new cache and data directories) in alternating order, the layout in the page cache; CPU without processes that outlive the command",
  ]);
  const own = parseReport(results[0]?.measurements[0]?.stdout ?? "{}");
  const packages = Object.entries(own.packages).map(([type, count]) => `${count} ${type}`);
  report.list([`stowage found ${own.files} files; packages: ${packages.join(", ") || "none"}`]);
}

function compare(report: Report, image: BenchImage, results: readonly Result[], ceiling: Ceiling): void {
  const [own, , ...peers] = results.map(({ contender, measurements }) => ({
    name: contender.name,
    wallMs: median(measurements.map(({ wallMs }) => wallMs)),
    peakRssBytes: median(measurements.map(({ peakRssBytes }) => peakRssBytes)),
  }));
  if (!own) return;
  const byBound = own.wallMs / ceiling.boundMs;
  report.goal(`${image.name}: wall ≤ ${ceilingGoal} × bound`, ratio(byBound), byBound <= ceilingGoal);
  if (image.name !== imageOfGoals) return;
  for (const { peer, timesFaster, memoryShare } of peerGoals) {
    const other = peers.find(({ name }) => name.startsWith(peer));
    if (!other) continue;
    const faster = other.wallMs / own.wallMs;
    const share = own.peakRssBytes / other.peakRssBytes;
    report.goal(`${image.name}: ≥ ${timesFaster} × faster than ${peer}`, ratio(faster), faster >= timesFaster);
    report.goal(`${image.name}: memory ≤ ${memoryShare} × ${peer}'s`, ratio(share), share <= memoryShare);
  }
}
