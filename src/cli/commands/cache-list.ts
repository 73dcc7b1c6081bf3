import type { CacheEntry } from "../../layercache/index.ts";
import { formatCount } from "../../runtime/index.ts";
import { writeNoCache } from "../cache-absence.ts";
import type { Context } from "../context.ts";
import { formatBytes, formatTime } from "../format.ts";
import { writeJson } from "../json.ts";
import { writeTable } from "../table.ts";

/** What `cache list` prints. */
export interface CacheList {
  readonly directory: string;
  readonly isThere: boolean;
  readonly entries: AsyncIterable<CacheEntry>;
}

export async function cacheList(context: Context): Promise<void> {
  await using found = await context.findLayerCache();
  const { directory, cache } = found;
  const entries = cache?.entries(context.call) ?? none();
  if (context.format === "json") {
    return await writeJson(context.output, { directory, isThere: cache !== undefined, entries } satisfies CacheList);
  }
  if (cache === undefined) return await writeNoCache(context, found);
  await writeTable(
    context.output,
    [
      { title: "DIGEST" },
      { title: "SIZE", alignment: "right" },
      { title: "LAST USED" },
      { title: "HITS", alignment: "right", sacrifice: 1 },
      { title: "IN USE", sacrifice: 2 },
    ],
    rowsOf(entries),
    context.colors.bold,
  );
}

async function* none(): AsyncGenerator<CacheEntry> {}

async function* rowsOf(entries: AsyncIterable<CacheEntry>): AsyncGenerator<readonly string[]> {
  for await (const { digest, sizeBytes, lastUsed, hits, isInUse } of entries) {
    yield [digest, formatBytes(sizeBytes), formatTime(lastUsed), formatCount(hits), isInUse ? "yes" : "-"];
  }
}
