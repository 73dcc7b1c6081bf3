/** The command `stowage`: the process around a command line. */
import { readFileSync } from "node:fs";
import { readEnvironment } from "../config/index.ts";
import { StowageError, toStowageError } from "../errors/index.ts";
import { describeFailure } from "./failure.ts";
import { runCommandLine } from "./run.ts";

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

const interruption = new AbortController();
// The last: its terminal was closed.
const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
for (const signal of signals) process.on(signal, interrupt);

/**
 * The first signal asks the command to stop and clean up; the second ends the process at once, in the signal's own way. The listeners stay until then:
 * log-update's cursor guard ends the process itself as soon as it finds that nobody else listens.
 */
function interrupt(signal: NodeJS.Signals): void {
  if (!interruption.signal.aborted) {
    interruption.abort(new StowageError("INPUT_INTERRUPTED", { what: signal }));
    return;
  }
  for (const each of signals) process.off(each, interrupt);
  process.kill(process.pid, signal);
}

// Node would print the error as it is, secrets and all.
process.on("uncaughtException", (error) => {
  process.stderr.write(describeFailure(toStowageError(error), String, true));
  process.exit(1);
});
// Nobody reads the messages any more; the work goes on.
process.stderr.on("error", () => {});

process.exitCode = await runCommandLine(
  process.argv.slice(2),
  version,
  {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    environment: readEnvironment(),
    openApplication: async (options, call) => (await import("../app/index.ts")).openApplication(options, call),
    openMigrator: async (options, call) => (await import("../app/index.ts")).openMigrator(options, call),
    openMigrationJournal: async (database, call) =>
      (await import("../app/index.ts")).openMigrationJournal(database, call),
    openStoreCheck: async (options, call) => (await import("../app/index.ts")).openStoreCheck(options, call),
  },
  interruption.signal,
);
