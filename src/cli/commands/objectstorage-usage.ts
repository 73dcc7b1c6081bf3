import { type SerializedError, StowageError } from "../../errors/index.ts";
import type { BackendHolding, DatabaseSize, KeptGroup, UsageReport } from "../../objects/index.ts";
import { formatCount, plural } from "../../runtime/index.ts";
import type { Context } from "../context.ts";
import { formatBytes } from "../format.ts";
import { writeJson } from "../json.ts";
import type { UsageFlags } from "../objectstorage-program.ts";
import { printable } from "../printable.ts";
import { type Column, writeFields, writeTable } from "../table.ts";

/** What `objectstorage usage -o json` prints. */
export interface UsageDocument {
  readonly groups: readonly (Omit<KeptGroup, "backendId"> & { readonly place: string })[];
  readonly backends: readonly (Omit<BackendHolding, "id" | "error"> & { readonly error?: SerializedError })[];
  readonly database: DatabaseSize;
}

export async function objectstorageUsage(context: Context, flags: UsageFlags): Promise<void> {
  const progress = await context.startProgress();
  let usage: UsageReport;
  {
    await using application = await context.open();
    if (flags.list) progress.tell("listing what the stores hold");
    usage = await application.objectStorage.usage(flags.list, context.call);
  }
  context[Symbol.dispose]();
  const document = documentOf(usage);
  if (context.format === "json") await writeJson(context.output, document);
  else await writeAll(context, document);
  const failed = usage.backends.filter(({ error }) => error !== undefined);
  const error = failed[0]?.error;
  if (error === undefined) return;
  throw new StowageError(
    "BACKEND_LEFT_OUT",
    { places: failed.map(({ place }) => place), reason: error.message },
    { cause: error, ...(error.hint === undefined ? {} : { hint: error.hint }) },
  );
}

async function writeAll(context: Context, document: UsageDocument): Promise<void> {
  const { output, colors } = context;
  await writeBackends(context, document);
  await output.write("\n");
  await writeSums(context, document, ["bucket", "place", "codec", "state"]);
  await output.write("\n");
  await writeSums(context, document, ["account"]);
  await output.write("\n");
  await writeSums(context, document, ["age"]);
  await output.write("\n");
  await writeFields(output, databaseFields(document.database), colors.bold);
  await output.write("\n");
  await writeTables(context, document.database);
}

function documentOf({ groups, backends, database }: UsageReport): UsageDocument {
  const placeOf = new Map(backends.map(({ id, place }) => [id, place]));
  return {
    groups: groups.map(({ backendId, ...rest }) => ({ place: placeOf.get(backendId) ?? String(backendId), ...rest })),
    backends: backends.map(({ id: _, error, ...rest }) => ({
      ...rest,
      ...(error === undefined ? {} : { error: error.serialize() }),
    })),
    database,
  };
}

async function writeBackends(context: Context, { backends, groups }: UsageDocument): Promise<void> {
  await writeTable(
    context.output,
    [
      { title: "BACKEND" },
      { title: "OBJECTS", alignment: "right" },
      { title: "STORED", alignment: "right" },
      { title: "HELD", alignment: "right" },
      { title: "EXPLAINED", alignment: "right" },
      { title: "MISSING", alignment: "right", sacrifice: 1 },
      { title: "REMARK", sacrifice: 2 },
    ],
    backends.map(({ place, held, error, isConfigured }) => {
      const own = groups.filter((group) => group.place === place);
      const remarks = [
        ...(isConfigured ? [] : ["not in the configuration"]),
        ...(error === undefined ? [] : [`could not be listed: ${error.message}`]),
        ...(held === undefined || held.foreignBlobs === 0
          ? []
          : [`${formatBytes(held.foreignBytes)} under ${plural(held.foreignBlobs, "name")} that no document has`]),
      ];
      return [
        printable(place),
        formatCount(own.reduce((sum, { objects }) => sum + objects, 0)),
        formatBytes(own.reduce((sum, { storedBytes }) => sum + storedBytes, 0)),
        held === undefined ? "-" : formatBytes(held.bytes),
        held === undefined ? "-" : percent(held.explainedBytes, held.bytes),
        held === undefined ? "-" : formatCount(held.missingBlobs),
        remarks.length === 0 ? "-" : printable(remarks.join("; ")),
      ];
    }),
    context.colors.bold,
  );
}

/** Rounded down: all but a byte of it is not all of it. */
function percent(part: number, whole: number): string {
  return whole === 0 ? "-" : `${Math.floor((part / whole) * 1000) / 10} %`;
}

type Dimension = "bucket" | "place" | "codec" | "state" | "account" | "age";
const titles = { bucket: "BUCKET", place: "BACKEND", codec: "CODEC", state: "STATE", account: "ACCOUNT", age: "AGE" };
const ages = { day: "at most a day", month: "at most 30 days", year: "at most a year", older: "older" };

/** Objects and bytes by the given dimensions, largest first. */
async function writeSums(context: Context, { groups }: UsageDocument, dimensions: readonly Dimension[]): Promise<void> {
  const sums = new Map<string, { cells: readonly string[]; objects: number; content: number; stored: number }>();
  for (const group of groups) {
    const cells = dimensions.map((each) => (each === "age" ? ages[group.age] : printable(group[each])));
    const key = JSON.stringify(cells);
    const sum = sums.get(key) ?? { cells, objects: 0, content: 0, stored: 0 };
    sum.objects += group.objects;
    sum.content += group.contentBytes;
    sum.stored += group.storedBytes;
    sums.set(key, sum);
  }
  await writeTable(
    context.output,
    [
      ...dimensions.map(
        (each): Column => (each === "place" ? { title: titles[each], sacrifice: 1 } : { title: titles[each] }),
      ),
      { title: "OBJECTS", alignment: "right" },
      { title: "LOGICAL", alignment: "right" },
      { title: "STORED", alignment: "right" },
    ],
    [...sums.values()]
      .toSorted((one, other) => other.stored - one.stored)
      .map(({ cells, objects, content, stored }) => [
        ...cells,
        formatCount(objects),
        formatBytes(content),
        formatBytes(stored),
      ]),
    context.colors.bold,
  );
}

function databaseFields({ bytes, logBytes, blobBytes, tables }: DatabaseSize): readonly (readonly [string, string])[] {
  const blobTables = tables.filter(({ name }) => name === "object_chunks" || name === "object_blobs").map(sizeOf);
  const blobTableBytes = blobTables.reduce((sum, each) => sum + each, 0);
  return [
    ["database", formatBytes(bytes)],
    ["documents in it", formatBytes(blobBytes)],
    ["free or overhead", `${formatBytes(Math.max(0, blobTableBytes - blobBytes))} of the tables that hold them`],
    [
      "log",
      logBytes === undefined ? "not known: this user may not ask" : `${formatBytes(logBytes)}, beside the database`,
    ],
  ];
}

function sizeOf({ tableBytes, indexBytes, longValueBytes }: DatabaseSize["tables"][number]): number {
  return tableBytes + indexBytes + longValueBytes;
}

async function writeTables(context: Context, { tables }: DatabaseSize): Promise<void> {
  await writeTable(
    context.output,
    [
      { title: "TABLE" },
      { title: "ROWS", alignment: "right" },
      { title: "DEAD ROWS", alignment: "right", sacrifice: 4 },
      { title: "ROWS' SIZE", alignment: "right", sacrifice: 1 },
      { title: "INDEXES", alignment: "right", sacrifice: 2 },
      { title: "LONG VALUES", alignment: "right", sacrifice: 3 },
      { title: "TOTAL", alignment: "right" },
    ],
    tables.map((table) => [
      printable(table.name),
      formatCount(table.rows),
      formatCount(table.deadRows),
      formatBytes(table.tableBytes),
      formatBytes(table.indexBytes),
      formatBytes(table.longValueBytes),
      formatBytes(sizeOf(table)),
    ]),
    context.colors.bold,
  );
}
