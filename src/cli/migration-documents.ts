/** The shapes of what the commands of migrations print; see `documents.ts`. */
import { z } from "zod";
import { error } from "./objectstorage-documents.ts";

const count = z.int().nonnegative();
const bytes = z.int().nonnegative();
const time = z.iso.datetime().describe("UTC");
const place = z.string().describe("the backend: its driver and what tells it from others");
const id = z.int().positive();
const state = z
  .enum(["planning", "running", "complete", "incomplete", "cancelled", "interrupted"])
  .describe("interrupted: it says that it runs, and no process is at it");

const summary = {
  id,
  type: z.literal("archivemigrationtask"),
  state,
  last_state: state.optional().describe("the state before this one"),
  executor_id: z.string().describe("host:pid:thread: of the process that was at it last"),
  created_at: time,
  started_at: time.optional(),
  ended_at: time.optional(),
  last_updated: time,
  migrate_from_driver: z.string(),
  migrate_to_driver: z.string(),
  migrate_from: place,
  migrate_to: place,
  archive_documents_to_migrate: count,
  archive_documents_migrated: count.describe("verified at the destination, and found there"),
  sources_left: count.describe(
    "of these, those that have not gone from their source yet: readers may need them, or they could not be deleted",
  ),
  online_migration: z.boolean(),
  verify: z.enum(["readback", "checksum"]).describe("how copies are compared with what was copied"),
  superseded: count.describe("changed or deleted meanwhile: nothing was to be moved"),
  failed: count.describe("that could not go on, until now"),
  bytes,
  bytes_migrated: bytes,
  rate: count.optional().describe("bytes per second, over all its time"),
};

const failure = {
  account: z.string(),
  bucket: z.string(),
  key: z.string(),
  state: z.enum(["planned", "copied", "verified", "switched", "done", "superseded", "abandoned"]),
  attempts: count,
  code: z.string(),
  text: z.string().describe("the last reason"),
};

const group = z.strictObject({ bucket: z.string(), from: place, to: place, objects: count, bytes });

export const migrationDocuments = {
  "objectstorage-migrate": z
    .discriminatedUnion("event", [
      z.strictObject({
        event: z.literal("plan"),
        groups: z.array(group),
        objects: count,
        bytes,
        isSamePlace: z.boolean().describe("source and destination are one place: there is nothing to move"),
        unfinished: id.optional().describe("the migration that is gone on with"),
        others: z.array(z.string()).describe("processes that have the object store open"),
      }),
      z.strictObject({
        event: z.literal("check"),
        place,
        name: z.string(),
        outcome: z.enum(["ok", "failed", "skipped"]),
        durationMs: z.number(),
        detail: z.string().optional(),
        error: error.optional(),
      }),
      z.strictObject({
        event: z.literal("estimate"),
        objects: count,
        bytes,
        seconds: count
          .optional()
          .describe("from what the test documents took, and --max-rate; missing where a store can't be used"),
        space: z
          .array(z.strictObject({ place, neededBytes: bytes, freeBytes: bytes.optional() }))
          .describe("at the destinations; free space is missing where the store can't tell"),
      }),
      z.strictObject({ event: z.literal("declined") }),
      z.strictObject({ event: z.literal("started"), id, isResumed: z.boolean() }),
      z.strictObject({
        event: z.literal("progress"),
        id,
        phase: z.string(),
        objects: count,
        objects_done: count,
        bytes,
        bytes_done: bytes,
        bytes_copied: bytes.describe("these, and what is copied and has still to be verified"),
        failures: count.describe("objects that could not go on until now; some may still go through"),
        rate: z.int().describe("bytes per second, since the last event"),
        seconds_left: count.optional(),
        waits_until: time.optional().describe("until when readers may need the last of the sources"),
      }),
      z.strictObject({ event: z.literal("failure"), ...failure }),
      z.strictObject({
        event: z.literal("configuration"),
        file: z
          .string()
          .optional()
          .describe("where it was written to, secrets as they stand in the destination's file"),
        text: z.string().describe("YAML, secrets masked"),
        left: z.array(z.strictObject({ place, objects: count })).describe("objects at places that it does not name"),
      }),
      z.strictObject({ event: z.literal("summary"), ...summary }),
    ])
    .describe(
      "one line of `stowage objectstorage migrate -o json` and `… migration resume -o json`; the last one is the summary, or of a migration that was not begun the configuration (there was nothing to move), the estimate, `declined`, or the plan where it was refused",
    ),
  "objectstorage-list-migrations": z
    .strictObject({ migrations: z.array(z.strictObject(summary)).describe("the oldest first") })
    .describe("`stowage objectstorage list-migrations -o json`"),
  "objectstorage-migration-show": z
    .strictObject({
      migration: z.strictObject(summary),
      files: z.array(z.string()).describe("configuration files: source and destination"),
      failures: z.array(z.strictObject(failure)).describe("everything that could not go on"),
    })
    .describe("`stowage objectstorage migration show ID -o json`"),
  "objectstorage-migration-cancel": z
    .strictObject({ migration: z.strictObject(summary) })
    .describe("`stowage objectstorage migration cancel ID -o json`"),
} as const;
