import { plural, systemClock } from "../../runtime/index.ts";
import type { Context } from "../context.ts";
import { writeJson } from "../json.ts";
import { parseMigrationId } from "../migration-id.ts";
import { type MigrationSummary, summaryOf } from "../migration-summary.ts";

/** What `objectstorage migration cancel` prints. */
export interface MigrationCancellation {
  readonly migration: MigrationSummary;
}

export async function objectstorageMigrationCancel(context: Context, text: string): Promise<void> {
  const { output, call, format } = context;
  const id = parseMigrationId(text);
  let migration: MigrationSummary;
  {
    await using journal = await context.openMigrationJournal();
    migration = summaryOf(await journal.cancel(id, call), systemClock.now());
  }
  if (format === "json") return await writeJson(output, { migration } satisfies MigrationCancellation);
  const { state, archive_documents_to_migrate: all, archive_documents_migrated: moved, superseded } = migration;
  await output.write(
    state === "complete"
      ? `migration ${id} is complete: there was nothing to cancel\n`
      : `migration ${id} is cancelled: ${plural(moved, "object")} at the destination, ${plural(all - moved - superseded, "object")} left at the source\n`,
  );
  await output.flush();
}
