import type { AnalysisReport } from "../../analysis/index.ts";
import type { Context } from "../context.ts";
import { formatBytes, formatCount, formatDuration, formatPackageCounts, plural } from "../format.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";
import type { AnalyzeFlags } from "../program.ts";
import { writeFields } from "../table.ts";

export async function analyze(context: Context, source: string, flags: AnalyzeFlags): Promise<void> {
  await using application = await context.open({ willAnalyze: true });
  const progress = await context.startProgress();
  const report = await application.analyze(
    source,
    { ...flags, insecure: flags.insecure ?? false, progress },
    context.call,
  );
  // The display goes before the result comes, so that they don't mix on a terminal.
  context[Symbol.dispose]();
  if (context.format === "json") return await writeJson(context.output, report);
  await writeFields(context.output, fieldsOf(report), context.colors.bold);
}

function fieldsOf(report: AnalysisReport): readonly (readonly [string, string | undefined])[] {
  const { distribution } = report;
  const reused = report.layers.filter(({ outcome }) => outcome === "reused").length;
  const notFetched = report.layers.filter(({ outcome }) => outcome === "notFetched").length;
  const remarks = [
    ...(reused > 0 ? [`${reused} known before`] : []),
    ...(notFetched > 0 ? [`${notFetched} foreign, not fetched`] : []),
  ];
  const layers = formatCount(report.layers.length) + (remarks.length > 0 ? ` (${remarks.join(", ")})` : "");
  return [
    ["digest", report.digest],
    ["image id", report.imageId],
    ["tag", report.fullTag === undefined ? undefined : printable(report.fullTag)],
    ["platform", printable(report.platform)],
    [
      "distribution",
      distribution ? printable(distribution.prettyName ?? `${distribution.id} ${distribution.version}`) : "none found",
    ],
    ["layers", layers],
    ["files", formatCount(report.files)],
    ["packages", formatPackageCounts(report.packages)],
    ["notes", report.notes === 0 ? undefined : `${plural(report.notes, "note")}, see: stowage image get`],
    ["read", formatBytes(report.bytesRead)],
    ["newly stored", formatBytes(report.bytesStored)],
    ["took", `${formatDuration(report.durationMs)}${report.wasKnown ? ", the image was known already" : ""}`],
  ];
}
