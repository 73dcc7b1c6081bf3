import { execFileSync } from "node:child_process";
import { type Contender, withScratch } from "../contender.ts";
import { type Measurement, measure } from "../measure.ts";
import { findPeers } from "../peers.ts";
import { megabytes, type Report, ratio, seconds } from "../report.ts";
import { median } from "../statistics.ts";
import { analyze, makePlace } from "./command.ts";
import type { Ground } from "./ground.ts";
import { smallTag, writeSmallImages } from "./images.ts";

const goal = 2;
const smallImages = 30;
const startShareMax = 0.9;

interface Cost extends Omit<Measurement, "stdout"> {
  /** What of the wall all the starts of a program took that did nothing, where that is told apart. */
  readonly startsMs: number;
}

interface Entrant {
  readonly name: string;
  readonly remark: string;
  /** Analyses all, with nothing known before. */
  run(references: readonly string[], scratch: string): Promise<Cost>;
}

interface Result {
  readonly entrant: Entrant;
  readonly measurements: Cost[];
}

/** Images per minute of a family and of small images that share nothing, against Trivy with its own layer cache. */
export async function benchRate(
  report: Report,
  ground: Ground,
  { peers, runs, scale }: { readonly peers: readonly string[]; readonly runs: number; readonly scale: number },
): Promise<void> {
  const { found, missing } = findPeers(peers);
  const trivy = found.find(({ name }) => name === "Trivy");
  if (trivy === undefined) for (const line of missing.filter((one) => one.startsWith("Trivy"))) report.leftOut(line);
  const entrants = [together, oneByOne, ...(trivy === undefined ? [] : [peerOf(trivy)])];
  await compare(report, ground.family.name, ground.references, entrants, runs);
  await withScratch(async (scratch) => {
    const layouts = await writeSmallImages(scratch, Math.max(4, Math.round(smallImages * scale)));
    const references: string[] = [];
    for (const [index, layout] of layouts.entries()) {
      references.push(await ground.registry.push(layout, smallTag, `small-${index}`));
    }
    await compare(report, "small images that share nothing", references, entrants, runs);
  });
}

async function compare(
  report: Report,
  load: string,
  references: readonly string[],
  entrants: readonly Entrant[],
  runs: number,
): Promise<void> {
  report.subheading(`Rate: ${load}, ${references.length} images`);
  const results: Result[] = entrants.map((entrant) => ({ entrant, measurements: [] }));
  for (let run = 0; run < runs; run++) {
    for (let turn = 0; turn < results.length; turn++) {
      const result = results[(run + turn) % results.length];
      if (result === undefined) continue;
      // Nobody waits for what another has left to be written.
      execFileSync("sync");
      result.measurements.push(await withScratch((scratch) => result.entrant.run(references, scratch)));
    }
  }
  const middle = ({ measurements }: Result, of: keyof Cost) =>
    median(measurements.map((measurement) => measurement[of]));
  const perMinute = (wallMs: number) => (references.length * 60_000) / wallMs;
  report.table([
    [
      "one after another, nothing known",
      "images per minute",
      "wall",
      "of that starts",
      "CPU",
      "peak RSS",
      "its database",
    ],
    ...results.map((result) => [
      result.entrant.name,
      perMinute(middle(result, "wallMs")).toFixed(1),
      seconds(middle(result, "wallMs")),
      middle(result, "startsMs") === 0 ? "–" : seconds(middle(result, "startsMs")),
      seconds(middle(result, "cpuMs")),
      megabytes(middle(result, "peakRssBytes")),
      megabytes(middle(result, "databasePeakRssBytes")),
    ]),
  ]);
  report.list(results.map(({ entrant }) => `${entrant.name}: ${entrant.remark}`));
  report.list([`medians of ${runs} runs in alternating order, from the local registry`]);
  const [own, , peer] = results;
  if (own === undefined || peer === undefined) return;
  const { name } = peer.entrant;
  const times = middle(peer, "wallMs") / middle(own, "wallMs");
  report.goal(`rate, ${load}: ≥ ${goal} × ${name}`, ratio(times), times >= goal);
  const share = middle(peer, "startsMs") / middle(peer, "wallMs");
  if (share > startShareMax) {
    const part = `${(share * 100).toFixed(0)} % of its wall`;
    report.leftOut(`rate, ${load}: ${name}, its starts given to it: they are ${part}, too much to tell the rest`);
    return;
  }
  const spared = times * (1 - share);
  report.goal(`rate, ${load}: ≥ ${goal} × ${name}, its starts given to it`, ratio(spared), spared >= goal);
}

const together: Entrant = {
  name: "stowage",
  remark:
    "all in one process, its database made before; packages, file list and three digests of every file, kept; no layer cache",
  run: async (references, scratch) => ({ ...(await analyze(await makePlace(scratch), references)), startsMs: 0 }),
};

const oneByOne: Entrant = {
  name: "stowage, a process for each",
  remark: "the same, started anew for each image, so that the database starts and stops each time",
  async run(references, scratch) {
    const place = await makePlace(scratch);
    return await inTurn(references, (reference) => analyze(place, [reference]));
  },
};

/** A start that does nothing is measured before one image of so many, under the load that the images find. */
const startEvery = 4;

function peerOf(contender: Contender): Entrant {
  return {
    name: contender.name,
    remark: `${contender.remark}; started anew for each image, its layer cache kept; its starts: as long as \`--version\` takes, which for a packed binary is mostly its unpacking`,
    async run(references, scratch) {
      await contender.prepare(scratch);
      const environment = contender.environment(scratch);
      const commandFor = (reference: string) => {
        const command = contender.pull?.(reference, scratch);
        if (command === undefined) throw new Error(`${contender.name} pulls nothing`);
        return command;
      };
      const version = [...commandFor("").slice(0, 1), "--version"];
      const walls: number[] = [];
      const cost = await inTurn(references, async (reference, index) => {
        if (index % startEvery === 0) walls.push((await measure(version, { environment })).wallMs);
        return await measure(commandFor(reference), { environment });
      });
      return { ...cost, startsMs: median(walls) * references.length };
    },
  };
}

async function inTurn(
  references: readonly string[],
  run: (reference: string, index: number) => Promise<Measurement>,
): Promise<Cost> {
  const total = { wallMs: 0, cpuMs: 0, peakRssBytes: 0, databasePeakRssBytes: 0, startsMs: 0 };
  for (const [index, reference] of references.entries()) {
    const { wallMs, cpuMs, peakRssBytes, databasePeakRssBytes } = await run(reference, index);
    total.wallMs += wallMs;
    total.cpuMs += cpuMs;
    total.peakRssBytes = Math.max(total.peakRssBytes, peakRssBytes);
    total.databasePeakRssBytes = Math.max(total.databasePeakRssBytes, databasePeakRssBytes);
  }
  return total;
}
