import type { MigrationSurvey, MigrationWork, Migrator } from "../app/index.ts";
import type { StowageError } from "../errors/index.ts";
import { plural } from "../runtime/index.ts";
import type { Context } from "./context.ts";
import { formatBytes, formatDuration } from "./format.ts";
import type { MigrationEvents } from "./migration-events.ts";
import { printable } from "./printable.ts";

/** Tries all stores as they are used, and says how long a migration would take; moves nothing. */
export async function rehearse(
  context: Context,
  migrator: Migrator,
  survey: MigrationSurvey,
  pace: Omit<MigrationWork, "watch">,
  events: MigrationEvents | undefined,
): Promise<void> {
  const { output, call, colors } = context;
  const rehearsal = migrator.rehearse(survey, call);
  let failure: StowageError | undefined;
  for await (const { place, step } of rehearsal.steps()) {
    failure ??= step.error;
    const { error } = step;
    if (events !== undefined) {
      const told = { ...step, durationMs: Math.round(step.durationMs), error: error?.serialize() };
      await events.send({ event: "check", place, ...told });
    } else if (error !== undefined) {
      await output.write(`${colors.red("FAILED")}  ${printable(`${place}: ${step.name}: ${error.message}`)}\n`);
      await output.flush();
    }
  }
  const { seconds, space } = await rehearsal.estimate(pace);
  const { objects, bytes } = survey;
  if (events !== undefined) {
    await events.send({ event: "estimate", objects, bytes, seconds, space });
  } else {
    const time =
      seconds === undefined ? "how long that takes can't be said" : `about ${formatDuration(seconds * 1000)}`;
    await output.write(`\n${plural(objects, "object")}, ${formatBytes(bytes)}: ${time}; nothing was moved\n`);
    for (const { place, neededBytes, freeBytes } of space) {
      const free = freeBytes === undefined ? "how much is free there can't be told" : `${formatBytes(freeBytes)} free`;
      const isEnough = freeBytes === undefined || freeBytes > neededBytes;
      await output.write(
        `${printable(place)}: ${formatBytes(neededBytes)} needed, ${free}${isEnough ? "" : colors.red(": not enough")}\n`,
      );
    }
    await output.flush();
  }
  if (failure !== undefined) throw failure;
}
