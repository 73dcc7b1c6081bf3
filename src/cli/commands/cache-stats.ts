import type { CacheStats } from "../../layercache/index.ts";
import { writeNoCache } from "../cache-absence.ts";
import type { Context } from "../context.ts";
import { formatBytes, formatCount, formatTime, plural } from "../format.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";
import { writeFields } from "../table.ts";

/** What `cache stats` prints. */
export interface CacheStatus extends CacheStats {
  readonly isThere: boolean;
  /** Whether analyses use it. */
  readonly isEnabled: boolean;
}

const nothing: Omit<CacheStats, "directory" | "bytesMax"> = {
  entries: 0,
  blobBytes: 0,
  bytesCounted: 0,
  bytesReserved: 0,
  bytesForeign: 0,
  entriesInUse: 0,
  oldestUse: undefined,
};

export async function cacheStats(context: Context): Promise<void> {
  await using found = await context.findLayerCache();
  const { directory, isEnabled, bytesMax, cache } = found;
  const stats = (await cache?.stats(context.call)) ?? { ...nothing, directory, bytesMax };
  const status: CacheStatus = { ...stats, directory, isThere: cache !== undefined, isEnabled };
  if (context.format === "json") return await writeJson(context.output, status);
  if (cache === undefined) return await writeNoCache(context, found);
  await writeFields(
    context.output,
    [
      ["directory", printable(status.directory)],
      ["turned on", isEnabled ? "yes" : "no: services.analyzer.layer_cache_enable turns it on"],
      ["limit", formatBytes(status.bytesMax)],
      ["taken up", `${formatBytes(status.bytesCounted)} (${percentage(status.bytesCounted, status.bytesMax)})`],
      ["layers", `${formatCount(status.entries)}, ${formatBytes(status.blobBytes)}`],
      ["in use", status.entriesInUse === 0 ? undefined : plural(status.entriesInUse, "layer")],
      ["downloads", status.bytesReserved === 0 ? undefined : `${formatBytes(status.bytesReserved)} reserved`],
      ["foreign files", status.bytesForeign === 0 ? undefined : formatBytes(status.bytesForeign)],
      ["oldest use", status.oldestUse === undefined ? undefined : formatTime(status.oldestUse)],
    ],
    context.colors.bold,
  );
}

function percentage(part: number, whole: number): string {
  return `${((part / whole) * 100).toFixed(1)} %`;
}
