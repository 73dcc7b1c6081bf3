import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { withScratch } from "../contender.ts";
import { waitForDatabaseEnd } from "../measure.ts";
import { megabytes, type Report, seconds } from "../report.ts";
import { median } from "../statistics.ts";
import { analyzeCommand, makePlace } from "./command.ts";
import { smallTag, writeSmallImages } from "./images.ts";

const analyses = 2000;
const flat = 0.1;
const quarters = [0.25, 0.5, 0.75, 1] as const;
/** Memory goes up and down with the collector: a quarter's is the median over so much of the run before it. */
const window = 0.1;

/** What the process holds when an image is done: `done` of them all. */
interface Sample {
  readonly done: number;
  readonly rssBytes: number;
}

/** Memory over many analyses of small images that share nothing, in one process. */
export async function benchMemory(report: Report, scale: number): Promise<void> {
  const count = Math.max(40, Math.round(analyses * scale));
  report.subheading(`Memory: ${count} analyses of small images in one process`);
  await withScratch(async (scratch) => {
    const layouts = await writeSmallImages(scratch, count);
    const place = await makePlace(scratch);
    const sources = layouts.map((layout) => `oci:${layout}:${smallTag}`);
    const begun = performance.now();
    const { samples, peakRssBytes } = await follow(await analyzeCommand(place, sources, { progress: true }));
    const wallMs = performance.now() - begun;
    await waitForDatabaseEnd(place.data);
    if (samples.length !== count) throw new Error(`of ${count} images ${samples.length} were analysed`);
    const held = quarters.map((quarter) => {
      const within = samples.filter(({ done }) => done > (quarter - window) * count && done <= quarter * count);
      return median(within.map(({ rssBytes }) => rssBytes));
    });
    // The first half is the warm-up: the heap's pools and the allocator's arenas find their sizes, and what is pooled is not given back.
    const [, reference = 0, ...later] = held;
    const drift = Math.max(...later.map((bytes) => Math.abs(bytes / reference - 1)));
    const slope = slopeOf(samples.filter(({ done }) => done > count / 2));
    report.table([
      ["", ...quarters.map((quarter) => `${quarter * 100} %`), "peak", "slope of the second half", "wall"],
      [
        "RSS",
        ...held.map(megabytes),
        megabytes(peakRssBytes),
        `${(slope / 1e3).toFixed(2)} kB an analysis`,
        seconds(wallMs),
      ],
    ]);
    report.list([
      `each the median over the ${window * 100} % of analyses before; the command with its threads, its database aside`,
    ]);
    const measured = `${later.map((bytes) => percent(bytes / reference - 1)).join(", ")}`;
    report.goal(
      `memory over ${count} analyses: at 75 % and 100 % ± ${flat * 100} % of what it was at 50 %`,
      measured,
      drift <= flat,
    );
  });
}

async function follow(
  command: readonly string[],
): Promise<{ readonly samples: readonly Sample[]; readonly peakRssBytes: number }> {
  const [program = "", ...parameters] = command;
  const child = spawn(program, parameters, { stdio: ["ignore", "ignore", "pipe"] });
  const ended = new Promise<number | null>((resolve, reject) => child.once("error", reject).once("exit", resolve));
  const samples: Sample[] = [];
  const last: string[] = [];
  let peakRssBytes = 0;
  for await (const line of createInterface({ input: child.stderr })) {
    const { progress } = parseLine(line);
    if (progress === undefined) last.push(line);
    if (progress?.event !== "sourceEnded") continue;
    const memory = readMemory(child.pid ?? 0);
    if (memory === undefined) continue;
    samples.push({ done: samples.length + 1, rssBytes: memory.rssBytes });
    peakRssBytes = Math.max(peakRssBytes, memory.peakRssBytes);
  }
  const code = await ended;
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${last.slice(-5).join("\n")}`);
  return { samples, peakRssBytes };
}

function parseLine(line: string): { readonly progress?: { readonly event?: string } } {
  try {
    return JSON.parse(line) as ReturnType<typeof parseLine>;
  } catch {
    return {};
  }
}

/** Undefined when the process has ended meanwhile. */
function readMemory(pid: number): { readonly rssBytes: number; readonly peakRssBytes: number } | undefined {
  let status: string;
  try {
    status = readFileSync(`/proc/${pid}/status`, "utf8");
  } catch {
    return undefined;
  }
  const field = (name: string) => Number(new RegExp(`^${name}:\\s*(\\d+) kB`, "m").exec(status)?.[1] ?? 0) * 1024;
  return { rssBytes: field("VmRSS"), peakRssBytes: field("VmHWM") };
}

/** Bytes for each analysis, by least squares. */
function slopeOf(samples: readonly Sample[]): number {
  const mean = (of: (sample: Sample) => number) => samples.reduce((total, one) => total + of(one), 0) / samples.length;
  const [done, bytes] = [mean((one) => one.done), mean((one) => one.rssBytes)];
  const together = mean((one) => (one.done - done) * (one.rssBytes - bytes));
  return together / mean((one) => (one.done - done) ** 2);
}

function percent(share: number): string {
  return `${share < 0 ? "−" : "+"}${Math.abs(share * 100).toFixed(1)} %`;
}
