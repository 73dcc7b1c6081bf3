import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { withScratch } from "./contender.ts";
import { readTags } from "./layout.ts";
import { measure, waitForDatabaseEnd } from "./measure.ts";
import { megabytes, type Report, seconds } from "./report.ts";
import { median } from "./statistics.ts";
import { analyzeCommand, dataDirectory, parseReport } from "./stowage.ts";

const bytesPerImageMax = 1e6;

/** What each further image of a family that shares a base costs to keep, and how long it takes. */
export async function benchFamily(report: Report, name: string, layout: string): Promise<void> {
  report.subheading(`Bytes kept: ${name}`);
  await withScratch(async (scratch) => {
    const images: { stored: number; databaseBytes: number; wallMs: number }[] = [];
    for (const tag of await readTags(layout)) {
      const { stdout, wallMs } = await measure(analyzeCommand(layout, tag, scratch));
      await waitForDatabaseEnd(dataDirectory(scratch));
      images.push({ stored: parseReport(stdout).bytesStored, databaseBytes: await tableBytes(scratch), wallMs });
    }
    const [first, ...added] = images;
    const last = images.at(-1);
    if (!first || !last || added.length === 0) throw new Error(`${layout} has no family of images`);
    const stored = added.reduce((total, image) => total + image.stored, 0) / added.length;
    const grown = (last.databaseBytes - first.databaseBytes) / added.length;
    report.table([
      ["", "first image", "each added, mean", "most"],
      [
        "objects newly stored",
        megabytes(first.stored),
        megabytes(stored),
        megabytes(Math.max(...added.map((one) => one.stored))),
      ],
      ["growth of the database", "–", megabytes(grown), "–"],
      [
        "wall",
        seconds(first.wallMs),
        `${seconds(median(added.map((one) => one.wallMs)))} (median)`,
        seconds(Math.max(...added.map((one) => one.wallMs))),
      ],
    ]);
    report.list([
      `${images.length} images; the database holds objects and rows: its tables and indexes as files after a clean stop, write-ahead log aside`,
    ]);
    report.goal(
      `${name}: ≤ ${megabytes(bytesPerImageMax)} kept per added image`,
      `${megabytes(stored)} of objects, ${megabytes(grown)} of database`,
      Math.max(stored, grown) <= bytesPerImageMax,
    );
  });
}

async function tableBytes(scratch: string): Promise<number> {
  const base = join(dataDirectory(scratch), "postgres/base");
  const files = (await readdir(base, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  const sizes = await Promise.all(files.map(async (file) => (await stat(join(file.parentPath, file.name))).size));
  return sizes.reduce((total, size) => total + size, 0);
}
