import type { AnalysisReport } from "../../analysis/index.ts";
import type { AnalysisOutcome, SourceSelection } from "../../app/index.ts";
import { type CodeEntry, type SerializedError, StowageError } from "../../errors/index.ts";
import { formatCount, plural } from "../../runtime/index.ts";
import type { Context } from "../context.ts";
import { formatBytes, formatDuration, formatPackageCounts, shortDigest } from "../format.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";
import type { AnalyzeFlags } from "../program.ts";
import { describeError } from "../progress/outcome.ts";
import { readSourceList } from "../source-list.ts";
import { type Column, writeTable } from "../table.ts";

/** What became of one source. */
export type SourceResult =
  | { readonly source: string; readonly outcome: "analyzed"; readonly report: AnalysisReport }
  | { readonly source: string; readonly outcome: "failed"; readonly error: SerializedError }
  | { readonly source: string; readonly outcome: "notDone" };

/** What became of several sources. */
export interface SeveralReport {
  readonly analyzed: number;
  readonly failed: number;
  readonly notDone: number;
  readonly bytesRead: number;
  readonly bytesStored: number;
  /** As `layerCache` of each. */
  readonly layerCache?: { readonly hits: number; readonly bytesSaved: number };
  readonly durationMs: number;
  readonly sources: AsyncIterable<SourceResult>;
}

/** Analyses all sources that the command line names; what became of each is printed even when the command is stopped. */
export async function analyzeSeveral(
  context: Context,
  sources: readonly string[],
  { fromFile, allTags = [], name, ...flags }: AnalyzeFlags,
): Promise<void> {
  if (name !== undefined) {
    const reason = "one name can't be that of several images";
    const hint = "leave it out, or analyse the image alone: stowage analyze SOURCE --name REPOSITORY:TAG";
    throw new StowageError("INPUT_INVALID", { what: "--name", value: name, reason }, { hint });
  }
  const selection: SourceSelection = {
    sources: fromFile === undefined ? sources : [...sources, ...(await listed(context, fromFile))],
    repositories: allTags,
  };
  await using application = await context.open({ willAnalyze: {} });
  const begun = performance.now();
  const progress = await context.startProgress();
  const options = { ...flags, insecure: flags.insecure ?? false, progress };
  const outcomes = await application.analyzeSeveral(selection, options, context.call);
  // The display goes before the result comes, so that they don't mix on a terminal.
  context[Symbol.dispose]();
  const report = reportOf(outcomes, performance.now() - begun);
  if (context.format === "json") await writeJson(context.output, report);
  else await writeReport(context, outcomes, report);
  throwUnlessDone(outcomes);
}

async function listed(context: Context, file: string): Promise<readonly string[]> {
  const found = await readSourceList(file, context.host.stdin, context.limits.sourcesMax, context.call);
  if (found.length > 0) return found;
  throw new StowageError("INPUT_INVALID", { what: "--from-file", value: file, reason: "it names no source" });
}

function reportOf(outcomes: readonly AnalysisOutcome[], durationMs: number): SeveralReport {
  const count = (wanted: AnalysisOutcome["outcome"]) => outcomes.filter(({ outcome }) => outcome === wanted).length;
  const reports = outcomes.flatMap((each) => (each.outcome === "analyzed" ? [each.report] : []));
  const sum = (of: (report: AnalysisReport) => number) => reports.reduce((total, report) => total + of(report), 0);
  const isCacheUsed = reports.some(({ layerCache }) => layerCache !== undefined);
  const layerCache = {
    hits: sum((report) => report.layerCache?.hits ?? 0),
    bytesSaved: sum((report) => report.layerCache?.bytesSaved ?? 0),
  };
  return {
    analyzed: reports.length,
    failed: count("failed"),
    notDone: count("notDone"),
    bytesRead: sum(({ bytesRead }) => bytesRead),
    bytesStored: sum(({ bytesStored }) => bytesStored),
    ...(isCacheUsed ? { layerCache } : {}),
    durationMs: Math.round(durationMs),
    sources: resultsOf(outcomes),
  };
}

/** As a stream, which is printed with one source on each line. */
async function* resultsOf(outcomes: readonly AnalysisOutcome[]): AsyncGenerator<SourceResult> {
  for (const each of outcomes) yield each.outcome === "failed" ? { ...each, error: each.error.serialize() } : each;
}

const columns: readonly Column[] = [
  { title: "SOURCE" },
  { title: "IMAGE" },
  { title: "LAYERS", sacrifice: 1 },
  { title: "FILES", alignment: "right", sacrifice: 3 },
  { title: "PACKAGES", sacrifice: 2 },
  { title: "TOOK", alignment: "right", sacrifice: 4 },
];
/** Last, since it is long. */
const why: Column = { title: "WHY" };

async function writeReport(
  { output, colors }: Context,
  outcomes: readonly AnalysisOutcome[],
  { analyzed, failed, notDone, bytesRead, bytesStored, layerCache, durationMs }: SeveralReport,
): Promise<void> {
  const rows = outcomes.map((outcome) => [printable(outcome.source), ...cellsOf(outcome)]);
  await writeTable(output, failed > 0 ? [...columns, why] : columns, rows, colors.bold);
  const counts = [
    `${formatCount(analyzed)} of ${plural(outcomes.length, "image")} analysed`,
    ...(failed > 0 ? [`${formatCount(failed)} failed`] : []),
    ...(notDone > 0 ? [`${formatCount(notDone)} not done`] : []),
  ];
  const bytes = [
    `${formatBytes(bytesRead)} read`,
    ...(layerCache === undefined ? [] : [`${formatBytes(layerCache.bytesSaved)} from the cache`]),
    `${formatBytes(bytesStored)} newly stored`,
  ];
  await output.write(`\n${counts.join(", ")}; ${bytes.join(", ")} in ${formatDuration(durationMs)}\n`);
  await output.flush();
}

function cellsOf(outcome: AnalysisOutcome): readonly string[] {
  if (outcome.outcome === "notDone") return ["not done"];
  if (outcome.outcome === "failed") return ["failed", "", "", "", "", printable(describeError(outcome.error))];
  const { fullTag, digest, layers, files, packages, durationMs } = outcome.report;
  const read = layers.filter((layer) => layer.outcome === "analyzed").length;
  const reused = layers.filter((layer) => layer.outcome === "reused").length;
  return [
    // A reference says the tag already.
    fullTag === undefined || fullTag === outcome.source ? shortDigest(digest) : printable(fullTag),
    `${formatCount(read)} read, ${formatCount(reused)} known`,
    formatCount(files),
    formatPackageCounts(packages),
    formatDuration(durationMs),
  ];
}

/** Some sources failed. Its exit code is that of their errors where all have the same, else 1. */
class SomeFailedError extends StowageError<"IMAGE_SEVERAL_FAILED"> {
  readonly #exitCode: CodeEntry<object>["exitCode"];

  constructor(errors: readonly StowageError[], of: number) {
    super(
      "IMAGE_SEVERAL_FAILED",
      { failed: errors.length, of },
      { hint: "what is wrong with each stands in the result" },
    );
    const [first = 1, ...others] = new Set(errors.map(({ entry }) => entry.exitCode));
    this.#exitCode = others.length === 0 ? first : 1;
  }

  override get entry(): CodeEntry<object> {
    return { ...super.entry, exitCode: this.#exitCode };
  }
}

function throwUnlessDone(outcomes: readonly AnalysisOutcome[]): void {
  const errors = outcomes.flatMap((each) => (each.outcome === "failed" ? [each.error] : []));
  if (errors.length > 0) throw new SomeFailedError(errors, outcomes.length);
  // Stopped: whoever stopped it says why.
  if (outcomes.some(({ outcome }) => outcome === "notDone")) throw new StowageError("INPUT_INTERRUPTED", {});
}
