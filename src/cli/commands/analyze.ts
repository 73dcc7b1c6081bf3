import type { AnalysisReport } from "../../analysis/index.ts";
import { StowageError } from "../../errors/index.ts";
import { formatCount, plural } from "../../runtime/index.ts";
import type { Context } from "../context.ts";
import { formatBytes, formatDuration, formatPackageCounts } from "../format.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";
import type { AnalyzeFlags } from "../program.ts";
import { layerRemarks } from "../progress/outcome.ts";
import { writeFields } from "../table.ts";

/** What one image holds, or, where several were asked for, what became of each: the form of the result is decided by the command line alone. */
export async function analyze(context: Context, sources: readonly string[], flags: AnalyzeFlags): Promise<void> {
  const { fromFile, allTags, ...options } = flags;
  const [source, ...others] = sources;
  if (fromFile === undefined && allTags === undefined && others.length === 0) {
    if (source !== undefined) return await analyzeOne(context, source, options);
    const hint = "add --help to see what a source is";
    throw new StowageError("INPUT_INVALID", { what: "missing required argument 'SOURCE'" }, { hint });
  }
  const { analyzeSeveral } = await import("./analyze-several.ts");
  await analyzeSeveral(context, sources, flags);
}

async function analyzeOne(context: Context, source: string, flags: AnalyzeFlags): Promise<void> {
  const progress = await context.startProgress();
  const options = { ...flags, insecure: flags.insecure ?? false, progress };
  await using application = await context.open({ willAnalyze: { first: { source, ...options } } });
  const report = await application.analyze(source, options, context.call);
  // The display goes before the result comes, so that they don't mix on a terminal.
  context[Symbol.dispose]();
  if (context.format === "json") return await writeJson(context.output, report);
  await writeFields(context.output, fieldsOf(report), context.colors.bold);
}

function cached({ hits, bytesSaved }: NonNullable<AnalysisReport["layerCache"]>): string {
  return hits === 0 ? "nothing" : `${plural(hits, "layer")}, ${formatBytes(bytesSaved)} not downloaded`;
}

function fieldsOf(report: AnalysisReport): readonly (readonly [string, string | undefined])[] {
  const { distribution } = report;
  return [
    ["digest", report.digest],
    ["image id", report.imageId],
    ["tag", report.fullTag === undefined ? undefined : printable(report.fullTag)],
    ["platform", printable(report.platform)],
    [
      "distribution",
      distribution ? printable(distribution.prettyName ?? `${distribution.id} ${distribution.version}`) : "none found",
    ],
    ["layers", formatCount(report.layers.length) + layerRemarks(report)],
    ["files", formatCount(report.files)],
    ["packages", formatPackageCounts(report.packages)],
    ["notes", report.notes === 0 ? undefined : `${plural(report.notes, "note")}, see: stowage image get`],
    ["read", formatBytes(report.bytesRead)],
    ["from the cache", report.layerCache === undefined ? undefined : cached(report.layerCache)],
    ["newly stored", formatBytes(report.bytesStored)],
    ["took", `${formatDuration(report.durationMs)}${report.wasKnown ? ", the image was known already" : ""}`],
  ];
}
