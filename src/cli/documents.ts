/**
 * The shapes of what `-o json` prints, one document for each command. `docs/schema/cli` and `docs/reference/json.md` are generated from here; the types
 * that the commands print are held against them when this file is compiled, and the commands' output when the tests run.
 */
import { z } from "zod";
import type { AnalysisReport } from "../analysis/index.ts";
import type { DeletionReport, FileRecord, ImageDetails, ImageSummary, PackageRecord } from "../app/index.ts";
import type { SerializedError } from "../errors/index.ts";
import type { JsonValue, OwnedFile } from "../layer/index.ts";
import { cacheDocuments } from "./cache-documents.ts";
import type { SeveralReport } from "./commands/analyze-several.ts";
import type { CacheClearance } from "./commands/cache-clear.ts";
import type { CacheList } from "./commands/cache-list.ts";
import type { CacheStatus } from "./commands/cache-stats.ts";
import type { CacheTrimming } from "./commands/cache-trim.ts";
import type { CacheCheck } from "./commands/cache-verify.ts";
import type { EffectiveConfiguration } from "./commands/config-show.ts";
import type { ValidationReport } from "./commands/config-validate.ts";
import type { CheckReport } from "./commands/objectstorage-check.ts";
import type { ClaimReport } from "./commands/objectstorage-claim.ts";
import type { GcPreview, GcReport } from "./commands/objectstorage-gc.ts";
import type { DriverList } from "./commands/objectstorage-list-drivers.ts";

import type { MigrationList } from "./commands/objectstorage-list-migrations.ts";
import type { MigrationCancellation } from "./commands/objectstorage-migration-cancel.ts";
import type { MigrationDetails } from "./commands/objectstorage-migration-show.ts";
import type { ScrubDocument } from "./commands/objectstorage-scrub.ts";
import type { UsageDocument } from "./commands/objectstorage-usage.ts";
import { migrationDocuments } from "./migration-documents.ts";
import { error, objectStorageDocuments } from "./objectstorage-documents.ts";

const digest = z.string().describe("`algorithm:hex`");
const count = z.int().nonnegative();
const bytes = z.int().nonnegative();
const path = z
  .string()
  .describe(
    "path in the image, without leading slash; bytes that are not UTF-8 stand as lone surrogates `\\udc80`–`\\udcff`",
  );
const octal = z.string().describe("permission bits in octal");
const layer = z.int().nonnegative().describe("position of the layer, lowest = 0");
const source = z.string().optional().describe("the source that it belongs to, where there are several");
const packages = z.record(z.string(), count).describe("number of packages by type");

const imageSummary = z.strictObject({
  digest: digest.describe("digest of the platform's manifest: the image's name in stowage"),
  imageId: digest.describe("digest of the image's configuration"),
  fullTags: z.array(z.string()).describe("`registry/repository:tag`"),
  platform: z.string().describe("`os/architecture[/variant]`"),
  distribution: z.string().optional().describe("id and version, for example `debian 12`"),
  layers: count,
  files: count.describe("names in the squashed view, directories included"),
  packages,
  blobBytes: bytes.describe("compressed size of all layers"),
  fileBytes: bytes.describe("size of all regular files of the squashed view"),
  damage: z.string().optional().describe("what is wrong with what is kept of it, and what to do about it"),
  analyzedAt: z.iso.datetime().describe("UTC"),
});

const ownedFile = z.strictObject({
  path: z.string().describe("path as the package names it, without leading slash"),
  digest: z.string().optional().describe("`algorithm:hex` that the package database records"),
  mode: z.int().optional().describe("permission bits, and type bits where the database has them, as a decimal number"),
  user: z.string().optional(),
  group: z.string().optional(),
  uid: z.int().optional(),
  gid: z.int().optional(),
  sizeBytes: z.number().optional(),
  isDirectory: z.boolean().optional(),
  isConfiguration: z.boolean().optional(),
  isGhost: z.boolean().optional().describe("owned, but not brought by the package: it may be missing or differ"),
  linkTarget: z.string().optional(),
});

const packageRecord = z.strictObject({
  type: z.enum(["apk", "dpkg", "rpm", "npm", "python"]),
  name: z.string(),
  version: z.string().describe("the whole version as the system shows it, epoch and release included"),
  epoch: z.number().optional(),
  upstreamVersion: z.string().optional(),
  release: z.string().optional(),
  architecture: z.string().optional(),
  source: z.strictObject({ name: z.string(), version: z.string().optional() }).optional().describe("source package"),
  licenses: z.array(z.string()),
  sizeBytes: z.number().optional().describe("installed size as the package says"),
  origin: z.string().optional().describe("maintainer, vendor or author"),
  description: z.string().optional(),
  homepage: z.string().optional(),
  purl: z.string().describe("package URL"),
  location: path.describe("path of the file that says so"),
  layer: layer.describe("position of the layer that holds that file"),
  cataloger: z.string(),
  ownedBy: z.string().optional().describe("package URL of the operating system's package that owns `location`"),
  files: z.array(ownedFile).optional().describe("files that the package owns, where its database lists them"),
});

const fileRecord = z.strictObject({
  path,
  type: z.enum(["file", "dir", "symlink", "char", "block", "fifo"]),
  mode: octal,
  uid: z.int(),
  gid: z.int(),
  sizeBytes: bytes,
  linkTarget: z.string().optional().describe("target of a symbolic link"),
  hardlinkOf: z
    .string()
    .optional()
    .describe(
      "the path that its file had when the hard link was made, links followed; by now it may be gone or hold another file",
    ),
  device: z.string().optional().describe("`major:minor`"),
  md5: z.hex().optional(),
  sha1: z.hex().optional(),
  sha256: z.hex().optional(),
  mtime: z.string().optional().describe("UTC, ISO 8601"),
  layer: layer.describe("position of the layer it comes from"),
  xattrs: z.record(z.string(), z.base64()).optional().describe("extended attributes, values in base64"),
  isImplied: z.literal(true).optional().describe("a directory that no layer has an entry for"),
});

const layerCache = z.strictObject({
  hits: count.describe("layers that came from the cache and not from the registry"),
  bytesSaved: bytes.describe("their bytes"),
});

const analysis = z.strictObject({
  digest: digest.describe("digest of the platform's manifest: the image's name in stowage"),
  imageId: digest.describe("digest of the image's configuration"),
  fullTag: z.string().optional(),
  platform: z.string().describe("`os/architecture[/variant]`"),
  distribution: z
    .strictObject({
      id: z.string(),
      version: z.string(),
      like: z.array(z.string()),
      prettyName: z.string().optional(),
    })
    .optional(),
  layers: z.array(
    z.strictObject({
      blobDigest: digest,
      diffId: digest.describe("digest of the uncompressed layer"),
      mediaType: z.string(),
      blobBytes: bytes,
      outcome: z.enum(["analyzed", "reused", "notFetched"]),
      entries: count.optional().describe("entries of the layer's archive"),
      bytesRead: bytes.describe("bytes of the blob that were read just now"),
      durationMs: z.number(),
    }),
  ),
  files: count.describe("names in the squashed view, directories included"),
  packages,
  bytesRead: bytes.describe("bytes of layers that were read just now, from wherever they came"),
  layerCache: layerCache
    .optional()
    .describe("what the layer cache has saved; only where one is turned on and the source is a registry"),
  bytesStored: bytes.describe("bytes newly stored"),
  notes: count.describe("notes on the image; `image get` has them"),
  wasKnown: z.boolean().describe("nothing had to be done"),
  durationMs: z.number(),
});

/** By the name of the file in `docs/schema/cli`. */
export const documents = {
  analyze: analysis.describe("`stowage analyze SOURCE -o json`"),
  "analyze-several": z
    .strictObject({
      analyzed: count.describe("sources that were analysed"),
      failed: count,
      notDone: count.describe("sources that were left because the command was stopped"),
      bytesRead: bytes,
      bytesStored: bytes.describe("bytes newly stored"),
      layerCache: layerCache.optional().describe("what the layer cache has saved, where one is turned on"),
      durationMs: z.number(),
      sources: z
        .array(
          z.discriminatedUnion("outcome", [
            z.strictObject({ source: z.string(), outcome: z.literal("analyzed"), report: analysis }),
            z.strictObject({ source: z.string(), outcome: z.literal("failed"), error }),
            z.strictObject({ source: z.string(), outcome: z.literal("notDone") }),
          ]),
        )
        .describe(
          "each source once, in the order in which they were named; a repository whose tags can't be listed is one",
        ),
    })
    .describe(
      "`stowage analyze -o json` of more than one SOURCE, with `--from-file` or with `--all-tags`; printed also when some fail or the command is stopped",
    ),
  "image-list": z.strictObject({ images: z.array(imageSummary) }).describe("`stowage image list -o json`"),
  "image-get": imageSummary
    .extend({
      parentDigest: digest.describe("digest of the index through which the image was found, else its own"),
      layerList: z.array(
        z.strictObject({
          position: layer,
          blobDigest: digest,
          diffId: digest.describe("digest of the uncompressed layer"),
          mediaType: z.string(),
          blobBytes: bytes,
          isFetched: z.boolean().describe("false for a foreign layer, of which nothing is known"),
        }),
      ),
      notes: z
        .array(z.strictObject({ code: z.string(), layer: layer.optional(), path, text: z.string() }))
        .describe("what an operator should know, for example where unpackers disagree"),
      notesLeftOut: count.describe("notes that were counted but not kept"),
      suidFiles: z
        .array(z.strictObject({ path, mode: octal }))
        .describe("files with the set-user-ID or set-group-ID bit"),
      users: count.describe("users in `/etc/passwd`"),
      config: z.unknown().describe("the image's configuration as its author wrote it"),
    })
    .describe("`stowage image get IMAGE -o json`"),
  "image-content-packages": z
    .strictObject({
      digest: digest.describe("of the image"),
      type: z.enum(["os", "apk", "dpkg", "rpm", "npm", "python"]).describe("as asked for"),
      packages: z.array(packageRecord),
    })
    .describe("`stowage image content IMAGE os|apk|dpkg|rpm|npm|python -o json`"),
  "image-content-files": z
    .strictObject({ digest: digest.describe("of the image"), files: z.array(fileRecord).describe("sorted by path") })
    .describe("`stowage image content IMAGE files -o json`"),
  "image-delete": z
    .strictObject({
      digest,
      fullTags: z.array(z.string()).describe("tags that are gone with it"),
      bytesReclaimed: bytes.describe(
        "bytes of its own documents, given back when no reader can need them; layers that other images stand on stay",
      ),
    })
    .describe("`stowage image delete IMAGE -o json`"),
  "config-validate": z
    .strictObject({
      file: z.string(),
      warnings: z.array(z.strictObject({ file: z.string(), line: z.int().positive(), text: z.string() })),
    })
    .describe("`stowage config validate FILE -o json`, where the file is valid"),
  "config-show": z
    .strictObject({
      file: z.string().optional().describe("the configuration file"),
      values: z.array(
        z.strictObject({
          key: z.string(),
          value: z.union([z.string(), z.number(), z.boolean(), z.null()]).describe("asterisks where it is secret"),
          isSecret: z.boolean(),
          source: z
            .discriminatedUnion("kind", [
              z.strictObject({
                kind: z.literal("file"),
                file: z.string(),
                line: z.int().positive(),
                variables: z.array(z.string()).describe("whose values stand in it"),
              }),
              z.strictObject({ kind: z.literal("variable"), name: z.string() }),
              z.strictObject({ kind: z.literal("option"), name: z.string() }),
              z.strictObject({ kind: z.literal("default") }),
            ])
            .describe("where it comes from"),
        }),
      ),
    })
    .describe("`stowage config show -o json`"),
  ...objectStorageDocuments,
  ...migrationDocuments,
  ...cacheDocuments,
  error: z.strictObject({ error }).describe("standard error of any command that fails under `-o json`; one line"),
  progress: z
    .strictObject({
      progress: z.discriminatedUnion("event", [
        z.strictObject({
          event: z.literal("started"),
          label: z.string(),
          source,
          bytesDone: bytes,
          bytesTotal: bytes.optional(),
        }),
        z.strictObject({
          event: z.literal("advanced"),
          label: z.string(),
          source,
          bytesDone: bytes,
          bytesTotal: bytes.optional(),
          bytesPerSecond: bytes,
        }),
        z.strictObject({
          event: z.literal("ended"),
          label: z.string(),
          source,
          bytesDone: bytes,
          bytesTotal: bytes.optional(),
          outcome: z.string(),
        }),
        z.strictObject({
          event: z.literal("sourceEnded"),
          source: z.string(),
          outcome: z.enum(["analyzed", "failed", "notDone"]),
          sourcesEnded: count,
          sourcesFailed: count,
          sourcesTotal: count,
        }),
        z.strictObject({ event: z.literal("told"), text: z.string() }),
      ]),
    })
    .describe(
      "standard error of `analyze`, `objectstorage usage`, `gc` and `scrub`, and of `cache verify`, under `-o json` while they work, unless it is a terminal; one line each",
    ),
} as const;

/** `T` as it comes back from JSON: errors as they are shown, dates and branded strings are strings, streams are arrays, what may be undefined may be missing. */
type Printed<T> = T extends SerializedError
  ? z.infer<typeof error>
  : T extends Date
    ? string
    : T extends string
      ? Record<never, never> extends Record<T, 1>
        ? string
        : T
      : T extends AsyncIterable<infer E>
        ? Printed<E>[]
        : T extends readonly (infer E)[]
          ? Printed<E>[]
          : T extends object
            ? Optional<{ -readonly [K in keyof T]: JsonValue extends T[K] ? unknown : Printed<T[K]> }>
            : T;
type MayBeMissing<T> = unknown extends T ? false : undefined extends T ? true : false;
type Optional<T> = { [K in keyof T as MayBeMissing<T[K]> extends true ? never : K]: T[K] } & {
  [K in keyof T as MayBeMissing<T[K]> extends true ? K : never]?: T[K] | undefined;
};
// Assignability alone would not miss an optional field.
type Same<One, Other> = [One, keyof One] extends [Other, keyof Other]
  ? [Other, keyof Other] extends [One, keyof One]
    ? true
    : never
  : never;
type Document<Name extends keyof typeof documents> = z.infer<(typeof documents)[Name]>;

// Each line fails to compile when a printed type and its document drift apart.
true satisfies Same<Document<"analyze">, Printed<AnalysisReport>>;
true satisfies Same<Document<"analyze-several">, Printed<SeveralReport>>;
true satisfies Same<Document<"image-list">["images"][number], Printed<ImageSummary>>;
true satisfies Same<Document<"image-get">, Printed<ImageDetails>>;
true satisfies Same<Document<"image-content-packages">["packages"][number], Printed<Omit<PackageRecord, "owned">>>;
true satisfies Same<z.infer<typeof ownedFile>, Printed<OwnedFile>>;
true satisfies Same<Document<"image-content-files">["files"][number], Printed<FileRecord>>;
true satisfies Same<Document<"image-delete">, Printed<DeletionReport>>;
true satisfies Same<Document<"config-validate">, Printed<ValidationReport>>;
true satisfies Same<Document<"config-show">, Printed<EffectiveConfiguration>>;
true satisfies Same<Document<"objectstorage-list-drivers">, Printed<DriverList>>;
true satisfies Same<Document<"objectstorage-check">, Printed<CheckReport>>;
true satisfies Same<Document<"objectstorage-usage">, Printed<UsageDocument>>;
true satisfies Same<Document<"objectstorage-gc-preview">, Printed<GcPreview>>;
true satisfies Same<Document<"objectstorage-gc">, Printed<GcReport>>;
true satisfies Same<Document<"objectstorage-scrub">, Printed<ScrubDocument>>;
true satisfies Same<Document<"objectstorage-claim">, Printed<ClaimReport>>;
true satisfies Same<Document<"objectstorage-list-migrations">, Printed<MigrationList>>;
true satisfies Same<Document<"objectstorage-migration-show">, Printed<MigrationDetails>>;
true satisfies Same<Document<"objectstorage-migration-cancel">, Printed<MigrationCancellation>>;
true satisfies Same<Document<"cache-stats">, Printed<CacheStatus>>;
true satisfies Same<Document<"cache-list">, Printed<CacheList>>;
true satisfies Same<Document<"cache-trim">, Printed<CacheTrimming>>;
true satisfies Same<Document<"cache-verify">, Printed<CacheCheck>>;
true satisfies Same<Document<"cache-clear">, Printed<CacheClearance>>;
true satisfies Same<Document<"error">["error"]["code"], SerializedError["code"]>;
