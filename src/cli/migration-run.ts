import { access, constants, lstat, open } from "node:fs/promises";
import { dirname } from "node:path";
import type { MigrationWork, Migrator, RecordedMigration } from "../app/index.ts";
import { type Configuration, readStorageText } from "../config/index.ts";
import { messageOf, StowageError } from "../errors/index.ts";
import type { FailedMove, MigrationSnapshot } from "../migration/index.ts";
import { formatCount, plural, systemClock, throwIfAborted } from "../runtime/index.ts";
import type { Context } from "./context.ts";
import { formatDuration } from "./format.ts";
import type { MigrationEvents } from "./migration-events.ts";
import type { ResumeFlags } from "./migration-program.ts";
import { type MigrationSummary, summaryOf, writeSummary } from "./migration-summary.ts";
import { printable, printableJson } from "./printable.ts";
import { systemTicker } from "./progress/tasks.ts";
import { parseRate } from "./rate.ts";
import { writeTable } from "./table.ts";

/** Failures that the end of a migration names; `migration show` has them all. */
const failuresShownMax = 20;
const eventPaceMs = 1000;
const concurrencyMax = 256;

type PaceOptions = Omit<MigrationWork, "watch">;

/** @throws StowageError `INPUT_INVALID` */
export function paceOf({ concurrency, maxRate }: ResumeFlags): PaceOptions {
  const count = /^\d{1,4}$/.test(concurrency) ? Number(concurrency) : 0;
  if (concurrency !== "auto" && (count < 1 || count > concurrencyMax)) {
    const reason = `neither auto nor a number from 1 to ${concurrencyMax}`;
    throw new StowageError("INPUT_INVALID", { what: "--concurrency", value: concurrency, reason });
  }
  return {
    concurrency: concurrency === "auto" ? "auto" : count,
    ...(maxRate === undefined ? {} : { bytesPerSecondMax: parseRate(maxRate) }),
  };
}

/**
 * Before hours of work: nothing that is there is ever overwritten, and its directory takes a new file.
 * @throws StowageError `INPUT_INVALID`
 */
export async function refuseUnusableFile(file: string | undefined): Promise<void> {
  if (file === undefined) return;
  const refuse = (reason: string) => new StowageError("INPUT_INVALID", { what: "--write-config", value: file, reason });
  try {
    await lstat(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw refuse(messageOf(error));
    await access(dirname(file), constants.W_OK | constants.X_OK).catch((failure: unknown) => {
      throw refuse(`no file can be made in its directory: ${messageOf(failure)}`);
    });
    return;
  }
  throw refuse("it is there already; name a new file");
}

export function question(isOnline: boolean): string {
  return isOnline
    ? "Other stowage processes may go on meanwhile if they know both stores - proceed? (y/N) "
    : "Performing this operation requires *all* other stowage processes to be stopped - proceed? (y/N) ";
}

/** Before the question, so that they can be stopped while it waits. */
export async function warnOfOthers({ host, format }: Context, migrator: Migrator, isOnline: boolean): Promise<void> {
  if (isOnline || format === "json") return;
  const others = await migrator.others();
  if (others.length > 0) host.stderr.write(`in use by: ${others.map(printable).join(", ")}\n`);
}

export async function decline({ output }: Context, events: MigrationEvents | undefined): Promise<void> {
  if (events !== undefined) return await events.send({ event: "declined" });
  await output.write("Skipping conversion.\n");
  await output.flush();
}

/** Carries out a migration, shows how far it is, and how to go on with it when it is interrupted. */
export async function carryOut(
  context: Context,
  migrator: Migrator,
  migration: RecordedMigration,
  pace: PaceOptions,
  events: MigrationEvents | undefined,
): Promise<RecordedMigration> {
  const { id } = migration;
  const command = `stowage objectstorage migration resume ${id}`;
  const watcher = events === undefined ? await display(context, migration) : report(events, migration);
  // While what is under way comes to its end: whoever does not wait for that, and interrupts again, knows all the same how to go on.
  const stopping = () => watcher.stopping(command);
  context.call.signal.addEventListener("abort", stopping, { once: true });
  try {
    const ended = await migrator.run(id, { ...pace, watch: (snapshot) => watcher.watch(snapshot) }, context.call);
    watcher.end(ended.state);
    return ended;
  } catch (error) {
    watcher.end("interrupted");
    await events?.send({ event: "summary", ...summaryOf(await migrator.get(id, context.call), systemClock.now()) });
    if (context.call.signal.aborted) context.host.stderr.write(`interrupted; go on with: ${command}\n`);
    throwIfAborted(context.call);
    if (!(error instanceof StowageError)) throw error;
    // With the lock of a migration its hint is another one: much of it is done.
    const isOwn = error.hint === undefined || error.code === "DB_LOCK_LOST";
    const hint = isOwn ? `what was moved stays moved; go on with: ${command}` : `${error.hint}; go on with: ${command}`;
    throw new StowageError(error.code, error.details as never, { cause: error, hint });
  } finally {
    context.call.signal.removeEventListener("abort", stopping);
    context[Symbol.dispose]();
  }
}

interface Watcher {
  watch(snapshot: MigrationSnapshot): void;
  /** It was interrupted; what is under way comes to its end. */
  stopping(command: string): void;
  end(outcome: string): void;
}

async function display(context: Context, { bytes, counts }: RecordedMigration): Promise<Watcher> {
  const progress = await context.startProgress();
  // Of a batch that is under way, too: what is copied is what a person sees going on, what is done stands in the label.
  let bytesShown = counts.switched.bytes + counts.done.bytes + counts.superseded.bytes;
  const task = progress.begin("moving", bytes, bytesShown);
  return {
    watch(snapshot) {
      task.relabel(labelOf(snapshot));
      task.advance(snapshot.bytesCopied - bytesShown);
      bytesShown = snapshot.bytesCopied;
    },
    stopping: (command) =>
      progress.tell(
        `stopping when the documents under way are done, 30 s at most; interrupt again to end at once; go on with: ${command}`,
      ),
    end: (outcome) => task.end(outcome),
  };
}

function labelOf(snapshot: MigrationSnapshot): string {
  const { phase, objects, objectsDone, failures } = snapshot;
  const failed = failures === 0 ? "" : `, ${formatCount(failures)} failed so far`;
  const left = secondsToWait(snapshot);
  const wait = left === undefined ? "" : ` for ${formatDuration(left * 1000)} more`;
  return `${phase}${wait}: ${formatCount(objectsDone)} of ${plural(objects, "object")}${failed}`;
}

function secondsToWait({ waitsUntil }: MigrationSnapshot): number | undefined {
  if (waitsUntil === undefined) return undefined;
  return Math.max(0, Math.ceil((waitsUntil.getTime() - systemClock.now().getTime()) / 1000));
}

function report(events: MigrationEvents, { id }: RecordedMigration): Watcher {
  let latest: MigrationSnapshot | undefined;
  let last = { at: systemTicker.now(), bytes: undefined as number | undefined };
  const send = () => {
    if (latest === undefined) return;
    const { phase, objects, objectsDone, bytes, bytesDone, bytesCopied, failures } = latest;
    const now = { at: systemTicker.now(), bytes: bytesCopied };
    const rate =
      last.bytes === undefined || now.at === last.at ? 0 : ((now.bytes - last.bytes) * 1000) / (now.at - last.at);
    last = now;
    const left = rate > 0 ? Math.max(0, Math.round((bytes - bytesCopied) / rate)) : secondsToWait(latest);
    events.post({
      event: "progress",
      ...{
        id,
        phase,
        objects,
        objects_done: objectsDone,
        bytes,
        bytes_done: bytesDone,
        bytes_copied: bytesCopied,
        failures,
      },
      rate: Math.round(rate),
      seconds_left: left,
      waits_until: latest.waitsUntil,
    });
    latest = undefined;
  };
  const stop = systemTicker.every(eventPaceMs, send);
  return {
    watch(snapshot) {
      const isNewPhase = latest?.phase !== snapshot.phase && last.bytes === undefined;
      latest = snapshot;
      if (isNewPhase) send();
    },
    stopping() {},
    end() {
      stop();
      send();
    },
  };
}

/** What became of it: summary, failures, configuration. Its end decides the exit code. */
export async function conclude(
  context: Context,
  migrator: Migrator,
  ended: RecordedMigration,
  destination: Configuration,
  writeConfig: string | undefined,
  events: MigrationEvents | undefined,
): Promise<void> {
  const summary = summaryOf(ended, systemClock.now());
  const isComplete = ended.state === "complete";
  const failures: FailedMove[] = [];
  if (summary.failed > 0) {
    for await (const failure of migrator.failures(ended.id)) if (failures.push(failure) === failuresShownMax) break;
  }
  const writing = async () => {
    if (events === undefined) await writeEnd(context, summary, failures);
    else for (const failure of failures) await events.send({ event: "failure", ...failure });
    try {
      if (isComplete) await presentConfiguration(context, migrator, destination, writeConfig, events);
    } finally {
      await events?.send({ event: "summary", ...summary });
    }
  };
  // Whether everything was moved is worth more than whether somebody reads of it.
  const trouble = await writing().then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
  if (!isComplete) throw incomplete(ended);
  if (trouble !== undefined) throw trouble.error;
}

function incomplete({ id, counts, state }: RecordedMigration): StowageError {
  const left = counts.planned.objects + counts.copied.objects + counts.verified.objects + counts.switched.objects;
  return new StowageError(
    "MIGRATION_INCOMPLETE",
    { migration: id, state, left, failed: counts.failed.objects },
    { hint: `see why: stowage objectstorage migration show ${id}; then try just these: … migration resume ${id}` },
  );
}

async function writeEnd(context: Context, summary: MigrationSummary, failures: readonly FailedMove[]): Promise<void> {
  const { output } = context;
  await output.write("Migration result summary:\n");
  await writeSummary(context, summary);
  if (failures.length === 0) return;
  await output.write("\n");
  await writeFailures(context, failures);
  if (summary.failed > failures.length) {
    const more = formatCount(summary.failed - failures.length);
    await output.write(`and ${more} more: stowage objectstorage migration show ${summary.id}\n`);
    await output.flush();
  }
}

export async function writeFailures(
  { output, colors }: Context,
  failures: Iterable<FailedMove> | AsyncIterable<FailedMove>,
): Promise<void> {
  const rows = async function* () {
    for await (const { account, bucket, key, state, attempts, text } of failures) {
      yield [printable(`${account}/${bucket}/${key}`), state, formatCount(attempts), printable(text)];
    }
  };
  const columns = [
    { title: "FAILED" },
    { title: "STATE", sacrifice: 1 },
    { title: "ATTEMPTS", alignment: "right", sacrifice: 2 },
    { title: "REASON" },
  ] as const;
  await writeTable(output, columns, rows(), colors.bold);
}

/**
 * Shown where it can't be written to its file.
 * @throws StowageError `INPUT_OUTPUT_FAILED`, `INPUT_FILE_UNWRITABLE`
 */
export async function presentConfiguration(
  context: Context,
  migrator: Migrator,
  destination: Configuration,
  writeConfig: string | undefined,
  events: MigrationEvents | undefined,
): Promise<void> {
  const { output, call } = context;
  const left = await migrator.leftElsewhere(call);
  for (const { place, objects } of left) {
    call.log.warn(
      { place, objects },
      "objects lie at a place that this configuration does not name; add it to services.catalog.other_object_stores",
    );
  }
  const failure = writeConfig === undefined ? undefined : await writeConfiguration(writeConfig, destination);
  const file = failure === undefined ? writeConfig : undefined;
  const text = await readStorageText(destination, true);
  if (events !== undefined) await events.send({ event: "configuration", file, text, left });
  else if (file === undefined) {
    await output.write("\nAfter this migration, your configuration must have these sections (secrets are masked):\n\n");
    await output.write(printableJson(text));
  } else await output.write(`\nThe configuration to put in place is in ${printable(file)}\n`);
  await output.flush();
  if (failure !== undefined) throw failure;
}

/** Returns what was wrong. */
async function writeConfiguration(file: string, destination: Configuration): Promise<StowageError | undefined> {
  const text = await readStorageText(destination, false);
  try {
    await using handle = await open(file, "wx", 0o600);
    await handle.writeFile(text);
    await handle.sync();
    return undefined;
  } catch (error) {
    const hint = "the configuration is shown instead, secrets masked; everything that was to be moved has been moved";
    return new StowageError("INPUT_FILE_UNWRITABLE", { file, reason: messageOf(error) }, { cause: error, hint });
  }
}
