import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { benchFamily } from "./family.ts";
import { type BenchImage, warmPageCache } from "./layout.ts";
import { describeMachine } from "./machine.ts";
import { benchMemory } from "./memory.ts";
import { Report } from "./report.ts";
import { benchSpeed } from "./speed.ts";
import { benchStartUp } from "./start-up.ts";
import { buildStowage } from "./stowage.ts";

const sections = ["speed", "memory", "family", "start-up"] as const;
const usage = `usage: npm run bench -- analyze [--images DIR] [--peers DIR:DIR…] [--runs N] [--only ${sections.join(",")}] [--markdown]`;

/** Where `bench/README.md` says to build them, below the directory of images. */
const images: readonly BenchImage[] = [
  { name: "minbase", layout: "minbase/layout", tag: "minbase" },
  { name: "large", layout: "large", tag: "large" },
];
const families = ["family-alpine", "family-large"];

/** Speed, memory, bytes kept and start-up of `stowage analyze`: see `bench/README.md`. */
export async function benchAnalyze(parameters: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...parameters],
    options: {
      images: { type: "string", default: process.env.STOWAGE_BENCH_IMAGES ?? "" },
      peers: { type: "string", default: process.env.STOWAGE_BENCH_PEERS ?? "" },
      runs: { type: "string", default: "5" },
      only: { type: "string", default: sections.join(",") },
      markdown: { type: "boolean", default: false },
    },
  });
  buildStowage();
  const runs = Number(values.runs);
  const only = values.only.split(",");
  if (!Number.isInteger(runs) || runs < 1 || only.some((one) => !sections.some((section) => section === one))) {
    console.error(usage);
    process.exitCode = 2;
    return;
  }
  const report = new Report(values.markdown);
  report.heading("analyze");
  report.list(describeMachine(`npm run bench -- analyze ${parameters.join(" ")}`));
  const found = images
    .map((image) => ({ ...image, layout: join(values.images, image.layout) }))
    .filter(({ name, layout }) => isThere(report, `image ${name}`, values.images, layout));
  // All contenders find the same state of the page cache: everything is in it.
  for (const { layout, tag } of found) await warmPageCache(layout, tag);
  const peers = values.peers.split(":").filter(Boolean);
  if (only.includes("speed")) for (const image of found) await benchSpeed(report, image, peers, runs);
  if (only.includes("memory")) await benchMemory(report, found, Math.min(runs, 3));
  if (only.includes("family")) {
    for (const family of families) {
      const layout = join(values.images, family);
      if (isThere(report, family, values.images, layout)) await benchFamily(report, family, layout);
    }
  }
  if (only.includes("start-up")) await benchStartUp(report);
  report.goals();
}

function isThere(report: Report, what: string, directory: string, layout: string): boolean {
  if (directory !== "" && existsSync(join(layout, "index.json"))) return true;
  report.leftOut(
    `${what}: ${directory === "" ? "neither --images nor STOWAGE_BENCH_IMAGES is set" : `no layout at ${layout}`}`,
  );
  return false;
}
