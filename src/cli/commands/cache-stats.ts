import type { CacheStats } from "../../layercache/index.ts";
import { formatCount, plural } from "../../runtime/index.ts";
import { writeNoCache } from "../cache-absence.ts";
import type { Context } from "../context.ts";
import { formatBytes, formatTime } from "../format.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";
import { writeFields } from "../table.ts";

/** What `cache stats` prints. */
export interface CacheStatus extends Omit<CacheStats, "bytesMax"> {
  readonly isThere: boolean;
  /** `undefined` where nobody who uses it has said how large it may be. */
  readonly bytesMax: number | undefined;
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
  const { directory, isEnabled, cache } = found;
  const stats = await cache?.stats(context.call);
  const bytesMax = stats === undefined ? found.bytesMax : found.limitOf(stats);
  const status: CacheStatus = { directory, isThere: cache !== undefined, isEnabled, ...(stats ?? nothing), bytesMax };
  if (context.format === "json") return await writeJson(context.output, status);
  if (cache === undefined) return await writeNoCache(context, found);
  await writeFields(
    context.output,
    [
      ["directory", printable(status.directory)],
      ["turned on", isEnabled ? "yes" : "no: services.analyzer.layer_cache_enable turns it on"],
      ["limit", bytesMax === undefined ? "not said in this configuration" : formatBytes(bytesMax)],
      // What the index is allowed depends on the limit.
      [
        "counted",
        bytesMax === undefined ? undefined : `${share(status.bytesCounted, bytesMax)}, with what its index may need`,
      ],
      ["layers", `${formatCount(status.entries)}, ${formatBytes(status.blobBytes)}`],
      ["in use", status.entriesInUse === 0 ? undefined : plural(status.entriesInUse, "layer")],
      ["downloads", status.bytesReserved === 0 ? undefined : `${formatBytes(status.bytesReserved)} reserved`],
      ["foreign files", status.bytesForeign === 0 ? undefined : formatBytes(status.bytesForeign)],
      ["oldest use", status.oldestUse === undefined ? undefined : formatTime(status.oldestUse)],
    ],
    context.colors.bold,
  );
}

function share(part: number, whole: number): string {
  return `${formatBytes(part)} (${((part / whole) * 100).toFixed(1)} %)`;
}
