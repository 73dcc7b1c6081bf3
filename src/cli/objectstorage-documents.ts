/** The shapes of what `stowage objectstorage … -o json` prints; see `documents.ts`. */
import { z } from "zod";
import { codes, type ErrorCode } from "../errors/index.ts";

export const error = z.strictObject({
  code: z.enum(Object.keys(codes) as [ErrorCode, ...ErrorCode[]]),
  message: z.string(),
  details: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.array(z.string())])),
  hint: z.string().optional().describe("what to do about it"),
  cause: z.string().optional(),
});

const count = z.int().nonnegative();
const bytes = z.int().nonnegative();
const failures = z
  .array(z.strictObject({ place: z.string(), error }))
  .describe("backends that could not be dealt with");

const place = z.string().describe("the backend: its driver and what tells it from others");

const garbage = {
  unusedLayers: z
    .strictObject({
      due: z.strictObject({ documents: count, bytes }),
      later: z.strictObject({ documents: count, bytes, dueInSeconds: count.describe("until the last of them is due") }),
    })
    .describe("layer documents that no image stands on; they are retired, and reclaimed after that"),
  stored: z.array(
    z.strictObject({
      place,
      state: z
        .enum(["pending", "retired", "deleting"])
        .describe("pending: by a writer; retired: replaced or deleted; deleting: decided"),
      isDue: z.boolean().describe("it can be reclaimed now"),
      dueInSeconds: count.describe("until the last of them is due"),
      locations: count,
      bytes,
    }),
  ),
};

export const objectStorageDocuments = {
  "objectstorage-list-drivers": z
    .strictObject({
      drivers: z.array(
        z.strictObject({
          name: z.string().describe("what `storage_driver.name` says"),
          aliases: z.array(z.string()).describe("other names of the same"),
          summary: z.string(),
        }),
      ),
    })
    .describe("`stowage objectstorage list-drivers -o json`"),
  "objectstorage-check": z
    .strictObject({
      file: z.string(),
      isUsable: z.boolean().describe("every step was done"),
      backends: z.array(
        z.strictObject({
          stores: z.array(z.enum(["object_store", "analysis_archive"])).describe("those that lie there"),
          place,
          steps: z.array(
            z.strictObject({
              name: z.string(),
              outcome: z.enum(["ok", "failed", "skipped"]).describe("skipped: an earlier step failed"),
              durationMs: z.number(),
              detail: z.string().optional().describe("what was found"),
              error: error.optional(),
            }),
          ),
        }),
      ),
    })
    .describe("`stowage objectstorage check FILE -o json`, also where a step fails"),
  "objectstorage-usage": z
    .strictObject({
      groups: z
        .array(
          z.strictObject({
            place,
            bucket: z.string(),
            account: z.string(),
            codec: z.string(),
            state: z.enum(["pending", "live", "retired", "kept", "deleting"]),
            age: z.enum(["day", "month", "year", "older"]).describe("how old at most: a day, 30 days, 365 days"),
            objects: count,
            contentBytes: bytes.describe("length of the contents"),
            storedBytes: bytes.describe("what is stored for them"),
          }),
        )
        .describe("objects that are alike"),
      backends: z.array(
        z.strictObject({
          place,
          isConfigured: z.boolean().describe("whether the configuration names it"),
          held: z
            .strictObject({
              blobs: count,
              bytes,
              explainedBlobs: count.describe("that belong to recorded objects"),
              explainedBytes: bytes,
              foreignBlobs: count.describe(
                "of all held: what has no name that stowage gives, and writes that have not ended",
              ),
              foreignBytes: bytes,
              missingBlobs: count.describe("recorded, and not there"),
              missingBytes: bytes,
            })
            .optional()
            .describe("what is listed there, whatever its name; missing when it was not listed"),
          error: error.optional().describe("why it could not be listed"),
        }),
      ),
      database: z.strictObject({
        bytes: bytes.describe("the database's size"),
        logBytes: bytes.optional().describe("the write-ahead log beside it; missing where this user may not ask"),
        blobBytes: bytes.describe("documents in it; the rest of their tables is overhead and free space"),
        tables: z.array(
          z.strictObject({
            name: z.string(),
            rows: count.describe("as the statistics know it"),
            deadRows: count.describe("deleted, and not yet reusable"),
            tableBytes: bytes,
            indexBytes: bytes,
            longValueBytes: bytes,
          }),
        ),
      }),
    })
    .describe("`stowage objectstorage usage -o json`, also where a store could not be listed"),
  "objectstorage-gc-preview": z.strictObject(garbage).describe("`stowage objectstorage gc --dry-run -o json`"),
  "objectstorage-gc": z
    .strictObject({
      layersRetired: count.describe(
        "layer documents that no image stood on: their bytes go when no reader can need them",
      ),
      reclaimed: z.array(
        z.strictObject({
          place,
          blobs: count,
          bytes: bytes.describe("of those whose size is known"),
          unmeasured: count.describe("of the blobs, those whose size nobody recorded: their writers died"),
        }),
      ),
      failures,
      left: z.strictObject(garbage).describe("what has to wait"),
      compaction: z
        .strictObject({
          tables: z.array(z.strictObject({ name: z.string(), bytesBefore: bytes, bytesAfter: bytes })),
          bytesBefore: bytes,
          bytesAfter: bytes,
        })
        .optional()
        .describe("with `--compact`"),
    })
    .describe("`stowage objectstorage gc -o json`, also where a backend failed"),
  "objectstorage-scrub": z
    .strictObject({
      id: z.int(),
      startedAt: z.iso.datetime().describe("UTC"),
      isResumed: z.boolean().describe("an interrupted scrub went on"),
      objects: count.describe("that were read"),
      bytes,
      repaired: count.describe("mended from a copy"),
      givenUp: count.describe("lost: the layer was forgotten, or the image marked"),
      forgotten: count.describe(
        "of those lost, documents of layers: they are not there any more; the others are damaged still",
      ),
      notNeeded: count.describe("wrong, and replaced or deleted since"),
      damaged: count.describe("objects that are damaged still, whoever noticed"),
      unreadable: count.describe("objects that could not be read"),
      counts: z.record(z.string(), count).describe("findings by kind"),
      findings: z
        .array(
          z.strictObject({
            place,
            physicalKey: z.string().describe("its name at the backend; a long one is cut"),
            kind: z
              .enum(["missing", "truncated", "damaged", "unreadable", "extra"])
              .describe("extra: belongs to nothing, or is an unfinished write"),
            detail: z.string().describe("which object it is, and what is wrong"),
            bytes: bytes.optional(),
          }),
        )
        .describe("the first ones"),
      failures,
      damagedImages: count.describe("images that have to be analysed again"),
      images: z
        .array(z.strictObject({ digest: z.string(), fullTags: z.array(z.string()), damage: z.string() }))
        .describe("the first of them"),
    })
    .describe("`stowage objectstorage scrub -o json`, also where something is damaged"),
  "objectstorage-claim": z
    .strictObject({ claimed: z.array(place).describe("places that have a marker") })
    .describe("`stowage objectstorage claim --yes -o json`"),
} as const;
