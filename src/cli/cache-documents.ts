/** The shapes of what `stowage cache … -o json` prints; see `documents.ts`. */
import { z } from "zod";

const count = z.int().nonnegative();
const bytes = z.int().nonnegative();
const directory = z.string().describe("where the cache is: `anchore_layercache` under `tmp_dir`");
const isThere = z.boolean().describe("false: there is no such directory, so there is nothing to do");
const removal = {
  directory,
  isThere,
  entries: count.describe("layers that were dropped"),
  bytes: bytes.describe("their bytes"),
  entriesInUse: count.describe("layers that had to stay because an analysis reads them"),
};

export const cacheDocuments = {
  "cache-stats": z
    .strictObject({
      directory,
      isThere,
      isEnabled: z.boolean().describe("whether analyses use it: `layer_cache_enable`"),
      bytesMax: bytes
        .optional()
        .describe(
          "`layer_cache_max_gigabytes` in bytes, the smallest of all processes that use it; missing where nobody has said it",
        ),
      entries: count.describe("layers in the cache"),
      blobBytes: bytes.describe("their bytes"),
      bytesCounted: bytes.describe(
        "what counts against the limit: all that lies in the directory, what is reserved, and the most that the index of a cache of this limit can need",
      ),
      bytesReserved: bytes.describe("of that, room for downloads that are under way"),
      bytesForeign: bytes.describe("of that, files that the cache did not make; it never removes them"),
      entriesInUse: count.describe("layers that an analysis reads just now"),
      oldestUse: z.iso.datetime().optional().describe("UTC; when the layer was used that goes out next"),
    })
    .describe("`stowage cache stats -o json`"),
  "cache-list": z
    .strictObject({
      directory,
      isThere,
      entries: z
        .array(
          z.strictObject({
            digest: z.string().describe("`algorithm:hex` of the layer's blob"),
            sizeBytes: bytes,
            lastUsed: z.iso.datetime().describe("UTC"),
            hits: count.describe("how often it was served since it came"),
            isInUse: z.boolean().describe("an analysis reads it just now"),
          }),
        )
        .describe("the least recently used first"),
    })
    .describe("`stowage cache list -o json`"),
  "cache-trim": z
    .strictObject({ ...removal, bytesMax: bytes.describe("what was to be left at most") })
    .describe("`stowage cache trim -o json`"),
  "cache-verify": z
    .strictObject({
      directory,
      isThere,
      entries: count.describe("layers that were read"),
      bytes: bytes.describe("their bytes"),
      damaged: z
        .array(z.strictObject({ digest: z.string().describe("`algorithm:hex`"), reason: z.string() }))
        .describe("layers that were damaged, and were dropped"),
      foreign: z.array(z.string()).describe("paths that the cache did not make and leaves alone; the first thousand"),
    })
    .describe("`stowage cache verify -o json`, also where something is damaged"),
  "cache-clear": z.strictObject(removal).describe("`stowage cache clear -o json`"),
} as const;
