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

const place = z.string().describe("the backend: its driver and what tells it from others");

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
} as const;
