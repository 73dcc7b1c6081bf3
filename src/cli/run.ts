import type { Command, CommanderError } from "commander";
import { StowageError, toStowageError } from "../errors/index.ts";
import { colorsFor } from "./colors.ts";
import type { Host } from "./context.ts";
import { describeFailure, failureDocument } from "./failure.ts";
import { OutputClosed } from "./output.ts";
import { createProgram, everyCommand, type GlobalOptions } from "./program.ts";

/**
 * Runs one command line and returns its exit code: 0 done, 1 refused or failed, 2 usage or configuration, 3 unreachable, 130 interrupted.
 * When `interrupted` fires, the command stops, cleans up and returns.
 */
export async function runCommandLine(
  arguments_: readonly string[],
  version: string,
  host: Host,
  interrupted: AbortSignal,
): Promise<number> {
  let help = "";
  let name = "";
  const program = createProgram(version, async (options, work) => {
    // Loaded when a command runs: help and version do without.
    const { createContext } = await import("./context.ts");
    using context = createContext(name, options, host, interrupted);
    await work(context);
  });
  program.hook("preAction", (_program, command) => {
    name = nameOf(command);
  });
  for (const command of everyCommand(program)) {
    command.configureOutput({
      writeOut: (text) => {
        help += text;
      },
      // Errors are ours to print; only help asked for by mistake (no subcommand) comes here and is wanted.
      writeErr: (text) => {
        help += text;
      },
      outputError: () => {},
      getOutHelpWidth: () => helpWidth(host.stdout.columns),
      getErrHelpWidth: () => helpWidth(host.stderr.columns),
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    });
  }
  try {
    refuseDashes(arguments_);
    await program.parseAsync(arguments_, { from: "user" });
    return 0;
  } catch (thrown) {
    const error = originalOf(thrown);
    if (error instanceof OutputClosed) return 0;
    if (isCommanderError(error)) {
      if (error.exitCode === 0) return writeHelp(host.stdout, help, 0);
      if (error.code === "commander.help") return writeHelp(host.stderr, help, 2);
    }
    // Whatever an aborted command fails with, the person's interrupt is the reason.
    const failure = interrupted.aborted
      ? toStowageError(interrupted.reason)
      : isCommanderError(error)
        ? usageError(error)
        : toStowageError(error);
    report(failure, program.opts(), host);
    return failure.entry.exitCode;
  }
}

/** Documentation prints options with a dash where two hyphens are meant; pasted, they would be taken for the names of files. */
function refuseDashes(arguments_: readonly string[]): void {
  const pasted = arguments_.find((text) => /^-?[\u2010-\u2015\u2212]-?[a-z]/i.test(text));
  if (pasted === undefined) return;
  const option = pasted.replace(/^[-\u2010-\u2015\u2212]+/, "");
  const hyphens = /^[a-z]$/i.test(option) ? "-" : "--";
  throw new StowageError(
    "INPUT_INVALID",
    { what: pasted, reason: "an option with a dash instead of hyphens, as documents print it" },
    { hint: `write ${hyphens}${option}` },
  );
}

/** `image list` */
function nameOf(command: Command): string {
  const { parent } = command;
  return parent?.parent ? `${nameOf(parent)} ${command.name()}` : command.name();
}

function writeHelp(stream: Host["stdout"], help: string, exitCode: number): number {
  stream.write(help);
  return exitCode;
}

function report(failure: StowageError, options: GlobalOptions, host: Host): void {
  if (options.output === "json") {
    host.stderr.write(failureDocument(failure));
    return;
  }
  const { red } = colorsFor(host.stderr, options, host.environment);
  const isVerbose = ["debug", "trace"].includes(options.logLevel ?? host.environment.logLevel);
  host.stderr.write(describeFailure(failure, red, isVerbose));
}

/** A resource that failed to close on the way out must not hide why the way out was taken. */
function originalOf(error: unknown): unknown {
  return error instanceof SuppressedError ? originalOf(error.suppressed) : error;
}

/** By shape, since commander is loaded once and its classes are nobody else's. */
function isCommanderError(error: unknown): error is CommanderError {
  return (
    error instanceof Error && "exitCode" in error && String((error as CommanderError).code).startsWith("commander.")
  );
}

function usageError(error: CommanderError): StowageError {
  const [message = "", suggestion] = error.message.replace(/^error: /, "").split(/\n\(Did you mean (.*)\?\)/s);
  const hint = suggestion === undefined ? "add --help to see what the command takes" : `did you mean ${suggestion}?`;
  return new StowageError("INPUT_INVALID", { what: message }, { hint });
}

function helpWidth(columns: number | undefined): number {
  return Math.max(60, Math.min(columns ?? 100, 120));
}
