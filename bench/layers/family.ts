import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Measurement } from "../measure.ts";
import { megabytes, type Report, ratio, seconds } from "../report.ts";
import { analyze, digestContents, makePlace } from "./command.ts";
import type { Ground } from "./ground.ts";

const goal = 10;

interface Cost {
  readonly bytes: number;
  readonly cpuMs: number;
  readonly wallMs: number;
}

/** A family of images from a registry: what each costs when the ones before are known, against analysing each for the first time. */
export async function benchFamily(report: Report, { family, references, registry, scratch }: Ground): Promise<void> {
  report.subheading(`Family: ${family.name}, ${references.length} images`);
  const cost = async (work: () => Promise<Measurement>): Promise<Cost> => {
    const before = await registry.served();
    const { cpuMs, wallMs } = await work();
    return { bytes: (await registry.served()).bytes - before.bytes, cpuMs, wallMs };
  };
  const warm: Cost[] = [];
  const cold: Cost[] = [];
  const known = await makePlace(join(scratch, "known"));
  const expected: string[] = [];
  let alike = 0;
  for (const [index, reference] of references.entries()) {
    const directory = join(scratch, "fresh");
    const fresh = await makePlace(directory);
    const turns = [
      async () => warm.push(await cost(() => analyze(known, [reference]))),
      async () => cold.push(await cost(() => analyze(fresh, [reference]))),
    ];
    for (const turn of index % 2 === 0 ? turns : turns.toReversed()) await turn();
    const contents = await digestContents(fresh, reference);
    expected.push(contents);
    if ((await digestContents(known, reference)) === contents) alike++;
    await rm(directory, { recursive: true });
  }
  const together = await makePlace(join(scratch, "together"));
  const all = await cost(() => analyze(together, references));
  let alikeTogether = 0;
  for (const [index, reference] of references.entries()) {
    if ((await digestContents(together, reference)) === expected[index]) alikeTogether++;
  }
  const [firstCold, ...laterCold] = cold;
  const [, ...laterWarm] = warm;
  if (firstCold === undefined) throw new Error("the family has no image");
  // Cold ones are alike in what they take, so their mean says best what the first took of the processors.
  const alone = { ...firstCold, cpuMs: mean(cold).cpuMs };
  const each = { cold: mean(laterCold), warm: mean(laterWarm), together: less(all, alone, laterCold.length) };
  const row = (name: string, { bytes, cpuMs }: Cost, wall: string) => [
    name,
    megabytes(bytes),
    ratio(each.cold.bytes / bytes),
    seconds(cpuMs),
    ratio(each.cold.cpuMs / cpuMs),
    wall,
  ];
  report.table([
    ["from the second image on, mean", "pulled", "less", "CPU", "less", "wall"],
    row("each cold, in a data directory of its own", each.cold, seconds(each.cold.wallMs)),
    row("the ones before known, a process for each", each.warm, seconds(each.warm.wallMs)),
    row("all in one process", each.together, "–"),
  ]);
  report.list([
    `the first, cold: ${megabytes(firstCold.bytes)}, ${seconds(firstCold.cpuMs)} CPU, ${seconds(firstCold.wallMs)}`,
    "pulled: bodies of the registry's answers, from its access log; no layer cache",
    "CPU: the whole command with its database, which is made before; the registry's is not counted",
    `all in one process: what all took, less what one takes alone, by the number of the others; wall of all ${seconds(all.wallMs)}`,
  ]);
  for (const [name, { bytes, cpuMs }, same] of [
    ["a process for each", each.warm, alike],
    ["one process", each.together, alikeTogether],
  ] as const) {
    const lessBytes = each.cold.bytes / bytes;
    const lessCpu = each.cold.cpuMs / cpuMs;
    report.goal(`family, ${name}: ≥ ${goal} × less pulled`, ratio(lessBytes), lessBytes >= goal);
    report.goal(`family, ${name}: ≥ ${goal} × less CPU`, ratio(lessCpu), lessCpu >= goal);
    const count = references.length;
    report.goal(`family, ${name}: results byte-identical to cold ones`, `${same} of ${count}`, same === count);
  }
}

function mean(costs: readonly Cost[]): Cost {
  const of = (name: keyof Cost) => costs.reduce((total, cost) => total + cost[name], 0) / costs.length;
  return { bytes: of("bytes"), cpuMs: of("cpuMs"), wallMs: of("wallMs") };
}

/** The walls of images that are under way at once can't be told apart: that figure means nothing. */
function less(all: Cost, first: Cost, others: number): Cost {
  const of = (name: keyof Cost) => (all[name] - first[name]) / others;
  return { bytes: of("bytes"), cpuMs: of("cpuMs"), wallMs: of("wallMs") };
}
