import type { ScrubSummary } from "../../app/index.ts";
import { type SerializedError, StowageError } from "../../errors/index.ts";
import type { ScrubPlan } from "../../objects/index.ts";
import { formatCount, type Progress, plural, throwIfAborted } from "../../runtime/index.ts";
import type { Context } from "../context.ts";
import { formatBytes, formatTime } from "../format.ts";
import { writeJson } from "../json.ts";
import type { ScrubFlags } from "../objectstorage-program.ts";
import { printable } from "../printable.ts";
import { parseRate } from "../rate.ts";
import { writeFields, writeTable } from "../table.ts";

/** What `objectstorage scrub -o json` prints. */
export type ScrubDocument = Omit<ScrubSummary, "failures"> & {
  readonly failures: readonly { readonly place: string; readonly error: SerializedError }[];
};

export async function objectstorageScrub(context: Context, flags: ScrubFlags): Promise<void> {
  const { format, output, call } = context;
  const share = shareOf(flags.sample);
  const bytesPerSecondMax = flags.maxRate === undefined ? {} : { bytesPerSecondMax: parseRate(flags.maxRate) };
  const repair = flags.repair ?? false;
  const restart = flags.restart ?? false;
  const progress = await context.startProgress();
  let report: ScrubSummary;
  {
    await using application = await context.open();
    let hasBegun = false;
    const begin = (plan: ScrubPlan) => {
      hasBegun = true;
      return announced(plan, share, progress);
    };
    try {
      const choice = { share, ...bytesPerSecondMax, repair, restart, begin, progress };
      report = await application.objectStorage.scrub(choice, call);
    } catch (error) {
      if (call.signal.aborted && hasBegun) progress.tell("interrupted; the next scrub goes on from here");
      throwIfAborted(call);
      throw error;
    }
  }
  context[Symbol.dispose]();
  if (format === "json") {
    const failures = report.failures.map(({ place, error }) => ({ place, error: error.serialize() }));
    await writeJson(output, { ...report, failures } satisfies ScrubDocument);
  } else await writeReport(context, report);
  const [first] = report.failures;
  const stillWrong = report.damaged + report.unreadable;
  if (stillWrong > 0 || report.damagedImages > 0) {
    throw new StowageError(
      "OBJECT_DAMAGED",
      { objects: stillWrong, images: report.damagedImages },
      { hint: hintFor(report, repair) },
    );
  }
  if (first === undefined) return;
  throw new StowageError(
    "BACKEND_LEFT_OUT",
    { places: report.failures.map(({ place }) => place), reason: first.error.message },
    { cause: first.error, hint: first.error.hint ?? "run it again: it goes on where it failed" },
  );
}

function announced({ share, resumed, objectsLeft, bytesLeft }: ScrubPlan, asked: number, progress: Progress) {
  if (resumed !== undefined) {
    const since = `${formatTime(resumed.startedAt)}, which has read ${plural(resumed.objects, "object")}`;
    const other = share === asked ? "" : ` of a sample of ${share * 100} %`;
    progress.tell(`going on with the interrupted scrub of ${since}${other}; --restart begins anew`);
  }
  return progress.begin(`scrubbing ${plural(objectsLeft, "object")}`, bytesLeft);
}

function hintFor({ damaged, unreadable, images }: ScrubSummary, repair: boolean): string {
  const [image] = images;
  if (damaged === 0 && unreadable > 0 && image === undefined) {
    return "find out why the store does not give these bytes, then run: stowage objectstorage scrub";
  }
  if (damaged > 0 && !repair) {
    const then = image === undefined ? "" : ", then analyse again the images that it names";
    return `run: stowage objectstorage scrub --repair${then}`;
  }
  if (image === undefined) return "these objects have no copy and can't be made again";
  return `analyse the image again: stowage analyze ${image.fullTags[0] ?? image.digest}; or delete it: stowage image delete ${image.digest}`;
}

function shareOf(sample: string | undefined): number {
  if (sample === undefined) return 1;
  const percent = /^\d+([.]\d+)?\s*%?$/.test(sample) ? Number.parseFloat(sample) : 0;
  if (percent > 0 && percent <= 100) return percent / 100;
  throw new StowageError("INPUT_INVALID", {
    what: "--sample",
    value: sample,
    reason: "not a percentage above 0, up to 100",
  });
}

/** What became of all that was found wrong: what stands before the last line and it are together what was found. */
function outcomeOf(report: ScrubSummary): readonly (readonly [string, string | undefined])[] {
  const { extra = 0, ...wrongByKind } = report.counts;
  const { repaired, givenUp, forgotten, notNeeded, damaged, unreadable } = report;
  const wrong = Object.values(wrongByKind).reduce((sum, count) => sum + count, 0);
  const lost = Math.min(damaged, givenUp - forgotten);
  const still = damaged + unreadable;
  const otherwise = wrong - repaired - forgotten - notNeeded - still;
  const parts = [
    [lost, "lost, until their images are analysed again"],
    [damaged - lost, "damaged"],
    [unreadable, "not readable"],
  ] as const;
  const named = parts.filter(([count]) => count > 0).map(([count, what]) => `${formatCount(count)} ${what}`);
  const line = (name: string, count: number, remark: string) =>
    [name, count <= 0 ? undefined : `${formatCount(count)}${remark}`] as const;
  return [
    line("mended from a copy", repaired, ""),
    line("layers forgotten", forgotten, ", to be read anew from the images"),
    line("not needed", notNeeded, ", replaced or deleted since"),
    line("settled otherwise", otherwise, ", before or beside this run"),
    ["damaged still", `${formatCount(still)}${named.length === 0 ? "" : `: ${named.join(", ")}`}`],
  ];
}

const detailWidthMax = 160;
const nameWidthMax = 72;

/** Enough of it to know it by: digests without most of their digits, and not longer than that. JSON has all of it. */
function shortened(text: string, widthMax: number): string {
  const short = text.replace(/[0-9a-f]{64}/g, (digits) => `${digits.slice(0, 12)}…`);
  return short.length <= widthMax ? short : `${short.slice(0, widthMax - 1)}…`;
}

async function writeReport(context: Context, report: ScrubSummary): Promise<void> {
  const { output, colors } = context;
  const found = Object.entries(report.counts).map(([kind, count]) => `${kind} ${formatCount(count)}`);
  await writeFields(
    output,
    [
      ["begun", `${formatTime(report.startedAt)}${report.isResumed ? ", went on after an interruption" : ""}`],
      ["read", `${plural(report.objects, "object")}, ${formatBytes(report.bytes)}`],
      ["found", found.length === 0 ? "nothing wrong" : found.join(", ")],
      ...outcomeOf(report),
      ["images to analyse again", report.damagedImages === 0 ? undefined : formatCount(report.damagedImages)],
    ],
    colors.bold,
  );
  if (report.findings.length > 0) {
    await output.write("\n");
    await writeTable(
      output,
      [
        { title: "FOUND" },
        { title: "SIZE", alignment: "right", sacrifice: 2 },
        { title: "WHAT" },
        { title: "PHYSICAL KEY", sacrifice: 3 },
        { title: "BACKEND", sacrifice: 1 },
      ],
      report.findings.map(({ kind, bytes, detail, physicalKey, place }) => [
        kind,
        bytes === undefined ? "-" : formatBytes(bytes),
        shortened(printable(detail), detailWidthMax),
        shortened(printable(physicalKey), nameWidthMax),
        printable(place),
      ]),
      colors.bold,
    );
    const all = Object.values(report.counts).reduce((sum, count) => sum + count, 0);
    const more = all - report.findings.length;
    if (more > 0) await output.write(`and ${formatCount(more)} more\n`);
  }
  if (report.images.length > 0) {
    await output.write("\n");
    await writeTable(
      output,
      [{ title: "IMAGE" }, { title: "TAG" }, { title: "DAMAGE" }],
      report.images.map(({ digest, fullTags, damage }) => [
        digest,
        fullTags.map(printable).join(", ") || "-",
        printable(damage),
      ]),
      colors.bold,
    );
  }
  for (const { place, error } of report.failures) {
    await output.write(`${colors.red("failed:")} ${printable(`${place}: ${error.message}`)}\n`);
  }
  await output.flush();
}
