import type { CollectionReport, GarbageAtBackend, GarbagePreview } from "../../app/index.ts";
import { type SerializedError, StowageError } from "../../errors/index.ts";
import { formatCount, plural } from "../../runtime/index.ts";
import type { Context } from "../context.ts";
import { formatBytes, formatDuration } from "../format.ts";
import { writeJson } from "../json.ts";
import type { GcFlags } from "../objectstorage-program.ts";
import { printable } from "../printable.ts";
import { writeTable } from "../table.ts";

/** What `objectstorage gc --dry-run -o json` prints. */
export type GcPreview = GarbagePreview;

/** What `objectstorage gc -o json` prints. */
export type GcReport = Omit<CollectionReport, "failures"> & {
  readonly failures: readonly { readonly place: string; readonly error: SerializedError }[];
};

export async function objectstorageGc(context: Context, flags: GcFlags): Promise<void> {
  if (flags.dryRun) return await preview(context);
  const progress = await context.startProgress();
  let report: CollectionReport;
  {
    await using application = await context.open({ isAlone: flags.exclusive ?? false });
    if (flags.compact) progress.tell("the tables of objects are locked while they are written anew");
    report = await application.objectStorage.collectGarbage(
      { compact: flags.compact ?? false, progress },
      context.call,
    );
  }
  context[Symbol.dispose]();
  if (context.format === "json") {
    const failures = report.failures.map(({ place, error }) => ({ place, error: error.serialize() }));
    await writeJson(context.output, { ...report, failures } satisfies GcReport);
  } else await writeReport(context, report);
  const [first] = report.failures;
  if (first === undefined) return;
  throw new StowageError(
    "BACKEND_LEFT_OUT",
    { places: report.failures.map(({ place }) => place), reason: first.error.message },
    { cause: first.error, hint: first.error.hint ?? "what could not be deleted stays recorded; run it again" },
  );
}

async function preview(context: Context): Promise<void> {
  await using application = await context.open();
  const garbage: GcPreview = await application.objectStorage.previewGarbage(context.call);
  if (context.format === "json") return await writeJson(context.output, garbage);
  await writeGarbage(context, garbage, true);
}

async function writeReport(context: Context, report: CollectionReport): Promise<void> {
  const { output, colors } = context;
  if (report.layersRetired > 0) {
    await output.write(`${plural(report.layersRetired, "layer document")} retired that no image stands on\n`);
  }
  if (report.reclaimed.length === 0) await output.write("nothing to reclaim\n");
  else {
    await writeTable(
      output,
      [{ title: "BACKEND" }, { title: "DELETED", alignment: "right" }, { title: "RECLAIMED", alignment: "right" }],
      report.reclaimed.map((each) => [printable(each.place), formatCount(each.blobs), sizeOf(each)]),
      colors.bold,
    );
  }
  for (const { place, error } of report.failures) {
    await output.write(`${colors.red("failed:")} ${printable(`${place}: ${error.message}`)}\n`);
  }
  const { compaction } = report;
  if (compaction !== undefined) {
    await output.write("\n");
    await writeTable(
      output,
      [{ title: "TABLE" }, { title: "BEFORE", alignment: "right" }, { title: "AFTER", alignment: "right" }],
      [...compaction.tables, { name: "all", ...compaction }].map(({ name, bytesBefore, bytesAfter }) => [
        name,
        formatBytes(bytesBefore),
        formatBytes(bytesAfter),
      ]),
      colors.bold,
    );
  }
  if (rowsOf(report.left).length > 0) {
    await output.write("\nleft:\n");
    await writeGarbage(context, report.left, false);
  }
  await output.flush();
}

/** Of what a writer that died has left, nobody knows how much it was. */
function sizeOf({ blobs, bytes, unmeasured }: CollectionReport["reclaimed"][number]): string {
  if (unmeasured === 0) return formatBytes(bytes);
  return unmeasured === blobs ? "not known" : `at least ${formatBytes(bytes)}`;
}

const reasons: Readonly<Record<GarbageAtBackend["state"], readonly [now: string, later: string]>> = {
  pending: ["a writer that died", "being written: the lease of its writer"],
  retired: ["replaced or deleted", "replaced or deleted: may still be read"],
  deleting: ["not deleted yet", "deleted once, again when no request can be on its way any more"],
};

async function writeGarbage(context: Context, garbage: GarbagePreview, isSumWanted: boolean): Promise<void> {
  const rows = rowsOf(garbage);
  if (rows.length === 0) {
    await context.output.write("nothing to reclaim, now or later\n");
    return await context.output.flush();
  }
  await writeTable(
    context.output,
    [
      { title: "WHEN" },
      { title: "DOCUMENTS", alignment: "right" },
      { title: "SIZE", alignment: "right" },
      { title: "WHAT" },
      { title: "BACKEND", sacrifice: 1 },
    ],
    rows.map(({ dueInSeconds, documents, bytes, what, place }) => [
      dueInSeconds === 0 ? "now" : `in ${formatDuration(dueInSeconds * 1000)}`,
      formatCount(documents),
      formatBytes(bytes),
      what,
      printable(place),
    ]),
    context.colors.bold,
  );
  if (!isSumWanted) return;
  const sum = (isDue: boolean) =>
    formatBytes(rows.reduce((all, each) => all + ((each.dueInSeconds === 0) === isDue ? each.bytes : 0), 0));
  await context.output.write(`\n${sum(true)} now, ${sum(false)} later; nothing was changed\n`);
  await context.output.flush();
}

interface Row {
  readonly dueInSeconds: number;
  readonly documents: number;
  readonly bytes: number;
  readonly what: string;
  readonly place: string;
}

function rowsOf({ unusedLayers: { due, later }, stored }: GarbagePreview): readonly Row[] {
  const layers = "layers that no image stands on";
  const rows: Row[] = stored.map(({ state, isDue, dueInSeconds, locations, bytes, place }) => ({
    dueInSeconds,
    documents: locations,
    bytes,
    what: reasons[state][isDue ? 0 : 1],
    place,
  }));
  if (due.documents > 0) rows.push({ ...due, dueInSeconds: 0, what: `${layers}: retired first`, place: "-" });
  if (later.documents > 0) rows.push({ ...later, what: `${layers}, used lately: retired then`, place: "-" });
  return rows.toSorted((one, other) => one.dueInSeconds - other.dueInSeconds);
}
