import { join } from "node:path";
import type { Measurement } from "../measure.ts";
import { megabytes, type Report, seconds } from "../report.ts";
import { median } from "../statistics.ts";
import { analyze, makePlace, type Place } from "./command.ts";
import type { Ground } from "./ground.ts";

/** Each run takes the next image of the family. */
const runsMax = 3;

interface Run extends Measurement {
  readonly pulledBytes: number;
}

/**
 * What is saved by results that are kept for each layer, and what by the layer cache: the next image on a base that is known; and the same when
 * nothing is known any more, as after an upgrade of the analyser.
 */
export async function benchSaves(report: Report, ground: Ground, wantedRuns: number): Promise<void> {
  const { registry, references, scratch } = ground;
  const runs = Math.min(wantedRuns, runsMax, references.length - 1);
  const [first = "", ...others] = references;
  const next = others.slice(0, runs);
  report.subheading(`What saves: ${ground.family.name}`);
  const run = async (place: Place, sources: readonly string[]): Promise<Run> => {
    const before = await registry.served();
    const measurement = await analyze(place, sources);
    return { ...measurement, pulledBytes: (await registry.served()).bytes - before.bytes };
  };
  let places = 0;
  const fresh = (cache?: string) => makePlace(join(scratch, `saves-${++places}`), cache === undefined ? {} : { cache });
  /** A cache through which these were pulled. */
  const cacheWith = async (sources: readonly string[]) => {
    const cache = join(scratch, `saves-cache-${++places}`);
    await analyze(await fresh(cache), sources);
    return cache;
  };
  const rows: string[][] = [["", "pulled", "wall", "CPU"]];
  const tell = (name: string, measured: readonly Run[]) => {
    const middle = (of: Exclude<keyof Run, "stdout">) => median(measured.map((one) => one[of]));
    rows.push([name, megabytes(middle("pulledBytes")), seconds(middle("wallMs")), seconds(middle("cpuMs"))]);
  };
  const each = async (placeFor: () => Promise<Place>) => {
    const measured: Run[] = [];
    for (const reference of next) measured.push(await run(await placeFor(), [reference]));
    return measured;
  };

  tell("next image, nothing known, no cache", await each(() => fresh()));
  const known = await fresh();
  await analyze(known, [first]);
  tell("next image, its base known, no cache", await each(async () => known));
  const filled = join(scratch, "saves-filled");
  const knownAndFilled = await fresh(filled);
  await analyze(knownAndFilled, [first]);
  tell("next image, its base known, its base in the cache", await each(async () => knownAndFilled));
  const base = await cacheWith([first]);
  tell("after an upgrade: next image, its base in the cache", await each(() => fresh(base)));
  const all = await cacheWith(references);
  tell("after an upgrade: an image, all of it in the cache", await each(() => fresh(all)));
  tell(`after an upgrade: all ${references.length} images, no cache`, [await run(await fresh(), references)]);
  tell(`after an upgrade: all ${references.length} images, all in the cache`, [
    await run(await fresh(all), references),
  ]);
  report.table(rows);
  report.list([
    `an upgrade of the analyser makes all results new: measured with an empty database; medians of ${runs} images, all images in one process once`,
  ]);
}
