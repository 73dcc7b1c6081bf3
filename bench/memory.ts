import { runOnce, withScratch } from "./contender.ts";
import type { BenchImage } from "./layout.ts";
import { megabytes, type Report, ratio, seconds } from "./report.ts";
import { coldStowage } from "./stowage.ts";
import { type SyntheticLayer, writeSyntheticLayout } from "./synthetic.ts";

const rssBytesMax = 300e6;
const growthMax = 1.1;

/** Layers of one kind, the second ten times larger than the first: memory must not follow. */
const pairs: readonly (readonly [SyntheticLayer, SyntheticLayer])[] = [
  [
    { name: "60 files of 1 MB", files: 60, fileBytes: 1e6 },
    { name: "600 files of 1 MB", files: 600, fileBytes: 1e6 },
  ],
  [
    { name: "one file of 100 MB", files: 1, fileBytes: 1e8 },
    { name: "one file of 1 GB", files: 1, fileBytes: 1e9 },
  ],
  [
    { name: "100,000 files of 16 bytes", files: 100_000, fileBytes: 16 },
    { name: "1,000,000 files of 16 bytes", files: 1_000_000, fileBytes: 16 },
  ],
];

/** Peak memory of the command, its database aside, on each image and on layers that differ in size alone. */
export async function benchMemory(report: Report, images: readonly BenchImage[], runs: number): Promise<void> {
  report.subheading("Memory");
  const rows: string[][] = [["image", "peak RSS", "its database", "wall"]];
  const peak = async (name: string, image: BenchImage): Promise<number> => {
    const measurements = [];
    for (let run = 0; run < runs; run++) measurements.push(await runOnce(coldStowage, image));
    // Of a limit the worst case counts, not the middle one.
    const bytes = Math.max(...measurements.map(({ peakRssBytes }) => peakRssBytes));
    const database = Math.max(...measurements.map(({ databasePeakRssBytes }) => databasePeakRssBytes));
    rows.push([
      name,
      megabytes(bytes),
      megabytes(database),
      seconds(Math.min(...measurements.map(({ wallMs }) => wallMs))),
    ]);
    report.goal(`${name}: peak RSS ≤ ${megabytes(rssBytesMax)}`, megabytes(bytes), bytes <= rssBytesMax);
    return bytes;
  };
  for (const image of images) await peak(image.name, image);
  for (const [small, large] of pairs) {
    const [before = 0, after = 0] = [await synthetic(small, peak), await synthetic(large, peak)];
    report.goal(`${large.name}: ± 10 % of ${small.name}`, ratio(after / before), after / before <= growthMax);
  }
  report.table(rows);
  report.list([`the worst of ${runs} cold runs each`]);
}

function synthetic(layer: SyntheticLayer, peak: (name: string, image: BenchImage) => Promise<number>): Promise<number> {
  return withScratch(async (scratch) => peak(layer.name, await writeSyntheticLayout(scratch, layer)));
}
