import type { AnalysisReport } from "../../analysis/index.ts";
import type { AnalysisOutcome } from "../../app/index.ts";
import type { StowageError } from "../../errors/index.ts";
import { formatCount, plural } from "../../runtime/index.ts";
import { formatDuration, formatPackageCounts } from "../format.ts";

/** What became of one of several sources, in a line. */
export function describeOutcome(outcome: AnalysisOutcome): string {
  if (outcome.outcome === "notDone") return "not done";
  if (outcome.outcome === "failed") return describeError(outcome.error);
  const { layers, files, packages, durationMs } = outcome.report;
  const parts = [
    plural(layers.length, "layer") + layerRemarks(outcome.report),
    plural(files, "file"),
    `packages: ${formatPackageCounts(packages)}`,
  ];
  return `${parts.join(", ")} (${formatDuration(durationMs)})`;
}

/** Code and sentence. */
export function describeError(error: StowageError): string {
  return `${error.code}: ${error.message.replaceAll(/\s*\n\s*/g, " ")}`;
}

/** ` (3 known before, 1 foreign, not fetched)` or nothing. */
export function layerRemarks({ layers }: AnalysisReport): string {
  const reused = layers.filter(({ outcome }) => outcome === "reused").length;
  const notFetched = layers.filter(({ outcome }) => outcome === "notFetched").length;
  const remarks = [
    ...(reused > 0 ? [`${formatCount(reused)} known before`] : []),
    ...(notFetched > 0 ? [`${formatCount(notFetched)} foreign, not fetched`] : []),
  ];
  return remarks.length > 0 ? ` (${remarks.join(", ")})` : "";
}
