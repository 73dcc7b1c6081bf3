import type { CacheRemoval } from "../../layercache/index.ts";
import { writeNoCache } from "../cache-absence.ts";
import { nothingRemoved, writeRemoval } from "../cache-removal.ts";
import type { Context } from "../context.ts";
import { writeJson } from "../json.ts";

/** What `cache clear` prints. */
export interface CacheClearance extends CacheRemoval {
  readonly directory: string;
  readonly isThere: boolean;
}

export async function cacheClear(context: Context): Promise<void> {
  await using found = await context.findLayerCache();
  const { directory, cache } = found;
  const removal = (await cache?.clear(context.call)) ?? nothingRemoved;
  if (context.format === "json") {
    return await writeJson(context.output, {
      directory,
      isThere: cache !== undefined,
      ...removal,
    } satisfies CacheClearance);
  }
  if (cache === undefined) return await writeNoCache(context, found);
  await writeRemoval(context, removal);
}
