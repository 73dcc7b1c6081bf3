import { StowageError } from "../../errors/index.ts";
import { formatCount, plural } from "../../runtime/index.ts";
import { confirm } from "../confirm.ts";
import type { Context } from "../context.ts";
import { formatTime } from "../format.ts";
import { MigrationEvents } from "../migration-events.ts";
import { parseMigrationId } from "../migration-id.ts";
import type { ResumeFlags } from "../migration-program.ts";
import { carryOut, conclude, decline, paceOf, question, refuseUnusableFile, warnOfOthers } from "../migration-run.ts";
import { printable } from "../printable.ts";

export async function objectstorageMigrationResume(
  context: Context,
  text: string,
  [givenSource, givenDestination]: readonly [string | undefined, string | undefined],
  flags: ResumeFlags,
): Promise<void> {
  const { call, format, output, host } = context;
  const id = parseMigrationId(text);
  const pace = paceOf(flags);
  await refuseUnusableFile(flags.writeConfig);
  if (givenSource !== undefined && givenDestination === undefined) {
    throw new StowageError("INPUT_INVALID", { what: "SRC-CONFIG without DEST-CONFIG" }, { hint: "give both, or none" });
  }
  const events = format === "json" ? new MigrationEvents(output) : undefined;
  const files = await filesOf(context, id, givenSource, givenDestination);
  const { migrator: opened, destination } = await context.openMigrator(files);
  await using migrator = opened;
  const migration = await migrator.get(id, call);
  await migrator.refuseOtherPlaces(migration, files, call);
  if (migration.state === "complete") {
    return await conclude(context, migrator, migration, destination, flags.writeConfig, events);
  }
  if (migration.state === "cancelled") {
    const hint = "begin another one: stowage objectstorage migrate SRC-CONFIG DEST-CONFIG";
    throw new StowageError("INPUT_INVALID", { what: `migration ${id}`, reason: "it was cancelled" }, { hint });
  }
  const { counts, objects, createdAt, source, destination: to, options } = migration;
  const done = counts.done.objects + counts.superseded.objects;
  if (events === undefined) {
    host.stderr.write(
      `going on with migration ${id} of ${formatTime(createdAt)}, ${printable(source.place)} to ${printable(to.place)}: ${formatCount(done)} of ${plural(objects, "object")} done\n`,
    );
  }
  await warnOfOthers(context, migrator, options.isOnline);
  if (!(flags.dontask || flags.yes) && !(await confirm(context, question(options.isOnline)))) {
    return await decline(context, events);
  }
  await migrator.enter(options.isOnline, call);
  await events?.send({ event: "started", id, isResumed: true });
  const ended = await carryOut(context, migrator, migration, pace, events);
  await conclude(context, migrator, ended, destination, flags.writeConfig, events);
}

/** Those given, else those that the journal remembers. */
async function filesOf(
  context: Context,
  id: number,
  source: string | undefined,
  destination: string | undefined,
): Promise<readonly [string, string]> {
  if (source !== undefined && destination !== undefined) return [source, destination];
  await using journal = await context.openMigrationJournal();
  return (await journal.get(id, context.call)).options.files;
}
