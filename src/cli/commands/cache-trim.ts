import type { CacheRemoval } from "../../layercache/index.ts";
import { writeNoCache } from "../cache-absence.ts";
import type { TrimFlags } from "../cache-program.ts";
import { nothingRemoved, writeRemoval } from "../cache-removal.ts";
import type { Context } from "../context.ts";
import { writeJson } from "../json.ts";
import { parseSize } from "../size.ts";

/** What `cache trim` prints. */
export interface CacheTrimming extends CacheRemoval {
  readonly directory: string;
  readonly isThere: boolean;
  /** What was to be left at most. */
  readonly bytesMax: number;
}

export async function cacheTrim(context: Context, { to }: TrimFlags): Promise<void> {
  const wanted = to === undefined ? undefined : parseSize(to, "--to");
  await using found = await context.findLayerCache();
  const { directory, cache } = found;
  const bytesMax = wanted ?? found.bytesMax;
  const removal = (await cache?.trim(bytesMax, context.call)) ?? nothingRemoved;
  if (context.format === "json") {
    const trimming: CacheTrimming = { directory, isThere: cache !== undefined, bytesMax, ...removal };
    return await writeJson(context.output, trimming);
  }
  if (cache === undefined) return await writeNoCache(context, found);
  await writeRemoval(context, removal);
}
