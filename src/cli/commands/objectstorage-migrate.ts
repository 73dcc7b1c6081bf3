import type { MigrationRequest, MigrationSurvey, Migrator, RecordedMigration } from "../../app/index.ts";
import { StowageError } from "../../errors/index.ts";
import { formatCount, plural } from "../../runtime/index.ts";
import { confirm } from "../confirm.ts";
import type { Context } from "../context.ts";
import { formatBytes, formatTime } from "../format.ts";
import { MigrationEvents } from "../migration-events.ts";
import type { MigrateFlags } from "../migration-program.ts";
import { rehearse } from "../migration-rehearsal.ts";
import {
  carryOut,
  conclude,
  decline,
  paceOf,
  presentConfiguration,
  question,
  refuseUnusableFile,
  warnOfOthers,
} from "../migration-run.ts";
import { absolute } from "../migration-settings.ts";
import { printable } from "../printable.ts";
import { writeTable } from "../table.ts";

export async function objectstorageMigrate(
  context: Context,
  files: readonly [string, string],
  flags: MigrateFlags,
): Promise<void> {
  const { call, format, output } = context;
  const request = requestOf(flags, files);
  const pace = paceOf(flags);
  await refuseUnusableFile(flags.writeConfig);
  const events = format === "json" ? new MigrationEvents(output) : undefined;
  const { migrator: opened, destination } = await context.openMigrator(files);
  await using migrator = opened;
  const survey = await migrator.survey(request, call);
  await show(context, migrator, survey, events);
  if (survey.unfinished !== undefined) refuseOtherOptions(survey.unfinished, request);
  if (flags.dryRun) return await rehearse(context, migrator, survey, pace, events);
  if (survey.objects === 0 && survey.unfinished === undefined) {
    return await presentConfiguration(context, migrator, destination, flags.writeConfig, events);
  }
  const { isOnline } = request;
  await warnOfOthers(context, migrator, isOnline);
  if (!(flags.dontask || flags.yes) && !(await confirm(context, question(isOnline)))) {
    return await decline(context, events);
  }
  await migrator.enter(isOnline, call);
  const begin = async (unfinished: RecordedMigration | undefined) => {
    const id = unfinished?.id ?? (await migrator.plan(request, call));
    await events?.send({ event: "started", id, isResumed: unfinished !== undefined });
    return await carryOut(context, migrator, await migrator.get(id, call), pace, events);
  };
  const ended = await begin(survey.unfinished);
  // What was stored since an earlier plan is part of what was asked for.
  const isMoreLeft =
    survey.unfinished !== undefined && ended.state === "complete" && (await migrator.survey(request, call)).objects > 0;
  await conclude(
    context,
    migrator,
    isMoreLeft ? await begin(undefined) : ended,
    destination,
    flags.writeConfig,
    events,
  );
}

/**
 * One that was begun goes on as it was begun, and nobody shall believe anything else.
 * @throws StowageError `MIGRATION_DIFFERS`
 */
function refuseOtherOptions({ id, options }: RecordedMigration, { verify, isOnline }: MigrationRequest): void {
  const nameOf = (isIt: boolean) => (isIt ? "with --online" : "without --online");
  const differences = [
    ...(options.verify === verify ? [] : [`with --verify ${options.verify}`]),
    ...(options.isOnline === isOnline ? [] : [nameOf(options.isOnline)]),
  ];
  if (differences.length === 0) return;
  throw new StowageError(
    "MIGRATION_DIFFERS",
    { migration: id, reason: `it was begun ${differences.join(" and ")}` },
    {
      hint: `go on with it as it was begun: stowage objectstorage migration resume ${id}, or end it: … migration cancel ${id}`,
    },
  );
}

function requestOf(flags: MigrateFlags, files: readonly [string, string]): MigrationRequest {
  const { account, since, until } = flags;
  const request = {
    fromAnalysisArchive: flags.fromAnalysisArchive ?? false,
    toAnalysisArchive: flags.toAnalysisArchive ?? false,
    buckets: [...new Set(flags.bucket ?? [])].toSorted(),
    ...(account === undefined ? {} : { account }),
    ...(since === undefined ? {} : { since: dateOf("--since", since) }),
    ...(until === undefined ? {} : { until: dateOf("--until", until) }),
    keepsSources: flags.nodelete ?? false,
    verify: flags.verify,
    isOnline: flags.online ?? false,
    files: absolute(files),
  };
  if (request.since !== undefined && request.until !== undefined && request.since >= request.until) {
    throw new StowageError("INPUT_INVALID", { what: "--since", reason: "it is not before --until" });
  }
  return request;
}

/** A date is its first moment; a time without a zone is UTC's, as a date is. */
function dateOf(what: string, text: string): Date {
  const match = /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2}(?:[.]\d{1,9})?)?)(Z|[+-]\d{2}:\d{2})?)?$/i.exec(text);
  const [, day = "", time = "00:00", zone = "Z"] = match ?? [];
  const date = new Date(`${day}T${time}${zone.toUpperCase()}`);
  // A day that a month does not have would be one of the next.
  const isDay = match !== null && new Date(`${day}T00:00Z`).toJSON()?.startsWith(day);
  if (isDay && !Number.isNaN(date.getTime())) return date;
  const reason = "not an ISO 8601 date or time, such as 2026-11-24 or 2026-11-24T21:10:27Z";
  throw new StowageError("INPUT_INVALID", { what, value: text, reason });
}

async function show(
  context: Context,
  migrator: Migrator,
  survey: MigrationSurvey,
  events: MigrationEvents | undefined,
): Promise<void> {
  const { output, colors } = context;
  const { groups, objects, bytes, isSamePlace, unfinished } = survey;
  if (events !== undefined) {
    const others = await migrator.others();
    return await events.send({
      event: "plan",
      groups,
      objects,
      bytes,
      isSamePlace,
      unfinished: unfinished?.id,
      others,
    });
  }
  if (isSamePlace) await output.write("nothing to move: source and destination are the same place\n");
  else if (objects === 0) await output.write("nothing to move: no selected document lies at the source\n");
  else {
    await writeTable(
      output,
      [
        { title: "BUCKET" },
        { title: "FROM" },
        { title: "TO" },
        { title: "OBJECTS", alignment: "right" },
        { title: "SIZE", alignment: "right" },
      ],
      [...groups, ...(groups.length > 1 ? [{ bucket: "all", from: "", to: "", objects, bytes }] : [])].map((group) => [
        printable(group.bucket),
        printable(group.from),
        printable(group.to),
        formatCount(group.objects),
        formatBytes(group.bytes),
      ]),
      colors.bold,
    );
  }
  if (unfinished !== undefined) {
    const { counts, id, createdAt, state } = unfinished;
    const done = counts.done.objects + counts.superseded.objects;
    await output.write(
      `going on with migration ${id} of ${formatTime(createdAt)}, which is ${state}: ${formatCount(done)} of ${plural(unfinished.objects, "object")} done\n`,
    );
  }
  await output.flush();
}
