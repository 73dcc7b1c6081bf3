import { formatCount, systemClock } from "../../runtime/index.ts";
import type { Context } from "../context.ts";
import { formatBytes, formatTime } from "../format.ts";
import { writeJson } from "../json.ts";
import { formatRate, type MigrationSummary, summaryOf } from "../migration-summary.ts";
import { printable } from "../printable.ts";
import { writeTable } from "../table.ts";

/** What `objectstorage list-migrations` prints. */
export interface MigrationList {
  readonly migrations: readonly MigrationSummary[];
}

export async function objectstorageListMigrations(context: Context): Promise<void> {
  const { output, call, format, colors } = context;
  let list: MigrationList;
  {
    await using journal = await context.openMigrationJournal();
    const now = systemClock.now();
    list = { migrations: (await journal.list(call)).map((migration) => summaryOf(migration, now)) };
  }
  if (format === "json") return await writeJson(output, list);
  await writeTable(
    output,
    [
      { title: "ID", alignment: "right" },
      { title: "STATE" },
      { title: "START TIME" },
      { title: "END TIME", sacrifice: 2 },
      { title: "FROM" },
      { title: "TO" },
      { title: "MIGRATED COUNT", alignment: "right" },
      { title: "TOTAL TO MIGRATE", alignment: "right" },
      { title: "LAST UPDATED", sacrifice: 4 },
      { title: "BYTES", alignment: "right", sacrifice: 1 },
      { title: "FAILED", alignment: "right" },
      { title: "RATE", alignment: "right", sacrifice: 3 },
    ],
    list.migrations.map((each) => [
      String(each.id),
      each.state,
      shownTime(each.started_at),
      shownTime(each.ended_at),
      printable(each.migrate_from_driver),
      printable(each.migrate_to_driver),
      formatCount(each.archive_documents_migrated),
      formatCount(each.archive_documents_to_migrate),
      shownTime(each.last_updated),
      formatBytes(each.bytes_migrated),
      formatCount(each.failed),
      formatRate(each.rate),
    ]),
    colors.bold,
  );
}

function shownTime(time: Date | undefined): string {
  return time === undefined ? "-" : formatTime(time);
}
