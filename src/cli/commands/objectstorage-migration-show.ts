import type { FailedMove } from "../../migration/index.ts";
import { systemClock } from "../../runtime/index.ts";
import type { Context } from "../context.ts";
import { writeJson } from "../json.ts";
import { parseMigrationId } from "../migration-id.ts";
import { writeFailures } from "../migration-run.ts";
import { type MigrationSummary, summaryOf, writeSummary } from "../migration-summary.ts";
import { printable } from "../printable.ts";

/** What `objectstorage migration show` prints. */
export interface MigrationDetails {
  readonly migration: MigrationSummary;
  readonly files: readonly string[];
  readonly failures: AsyncIterable<FailedMove>;
}

export async function objectstorageMigrationShow(context: Context, text: string): Promise<void> {
  const { output, call, format } = context;
  const id = parseMigrationId(text);
  await using journal = await context.openMigrationJournal();
  const found = await journal.get(id, call);
  const details: MigrationDetails = {
    migration: summaryOf(found, systemClock.now()),
    files: found.options.files,
    failures: journal.failures(id),
  };
  if (format === "json") return await writeJson(output, details);
  await writeSummary(context, details.migration);
  await output.write(`\nfiles: ${details.files.map(printable).join(" → ")}\n`);
  if (details.migration.failed > 0) {
    await output.write("\n");
    await writeFailures(context, details.failures);
  }
  await output.flush();
}
