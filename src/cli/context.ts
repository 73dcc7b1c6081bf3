import type { Colors } from "picocolors/types.js";
import type {
  Application,
  ApplicationOptions,
  FoundLayerCache,
  MigrationJournal,
  Migrator,
  MigratorOptions,
  SeveralProgress,
  StoreCheck,
} from "../app/index.ts";
import { type Configuration, type Environment, type Limits, maskSecrets, parseLimits } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import { type Call, createLogger, silentProgress } from "../runtime/index.ts";
import { colorsFor } from "./colors.ts";
import { formatLogLine } from "./log-lines.ts";
import { Output, type OutputStream } from "./output.ts";
import { type GlobalOptions, logLevels } from "./program.ts";
import { type ProgressDisplay, systemTicker } from "./progress/tasks.ts";
import { resolveSettings, type Settings } from "./settings.ts";

/** The world outside of the command line, so that tests can be one. */
export interface Host {
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly environment: Environment;
  /** Loaded on first use: most of the program hangs on it. */
  openApplication(options: ApplicationOptions, call: Call): Promise<Application>;
  openStoreCheck(options: Pick<ApplicationOptions, "configuration" | "database">, call: Call): Promise<StoreCheck>;
  openMigrator(options: MigratorOptions, call: Call): Promise<Migrator>;
  openMigrationJournal(database: ApplicationOptions["database"], call: Call): Promise<MigrationJournal>;
}

/** What a command works with. */
export interface Context extends Disposable {
  readonly host: Host;
  readonly format: "table" | "json";
  readonly output: Output;
  /** Colours for standard output. */
  readonly colors: Colors;
  readonly call: Call;
  readonly limits: Limits;
  /** What the options, the environment and the configuration file say together. */
  settings(): Promise<Settings>;
  /** Opens the application as the global options say; the command closes it. */
  open(options?: Pick<ApplicationOptions, "willAnalyze" | "isAlone">): Promise<Application>;
  /** Opens what tries the stores of a configuration file; the command closes it. */
  openStoreCheck(file: string): Promise<StoreCheck>;
  /** Opens what migrates from the stores of one file to those of another; the command closes it. */
  openMigrator(
    files: readonly [source: string, destination: string],
  ): Promise<{ readonly migrator: Migrator; readonly destination: Configuration }>;
  /** Finds the layer cache without opening any database; the command closes it. */
  findLayerCache(): Promise<FoundLayerCache>;
  /** Opens the records of migrations in the database that the options name; the command closes it. */
  openMigrationJournal(): Promise<MigrationJournal>;
  /** The display that suits standard error. It lives as long as the context. */
  startProgress(): Promise<SeveralProgress>;
}

/** @throws StowageError `CONFIG_INVALID` */
export function createContext(command: string, options: GlobalOptions, host: Host, signal: AbortSignal): Context {
  const { environment } = host;
  const format = options.output ?? "table";
  const limits = parseLimits([...environment.limits, ...(options.limit ?? [])]);
  const logLevel = options.logLevel ?? environment.logLevel;
  if (!(logLevels as readonly string[]).includes(logLevel)) {
    throw new StowageError("CONFIG_INVALID", { key: "STOWAGE_LOG_LEVEL", reason: `no such log level: ${logLevel}` });
  }
  if (options.dataDir === "") throw new StowageError("CONFIG_INVALID", { key: "--data-dir", reason: "it is empty" });
  let display: ProgressDisplay | undefined;
  const errorColors = colorsFor(host.stderr, options, environment);
  // Programs that read JSON get the log as JSON, too.
  const writeError = (line: string) => {
    const text = format === "json" ? line : formatLogLine(line, errorColors);
    if (display) display.print(text);
    else host.stderr.write(text);
  };
  const settings = () => resolveSettings(options, environment, limits);
  const warn = ({ configuration, warnings }: Settings) => {
    for (const { file, line, text } of configuration.warnings) call.log.warn({ file, line }, text);
    for (const text of warnings) call.log.warn(text);
  };
  const call: Call = { signal, log: createLogger(logLevel, writeError) };
  return {
    host,
    format,
    output: new Output(host.stdout),
    colors: colorsFor(host.stdout, options, environment),
    call,
    limits,
    settings,
    async open(opening = {}) {
      const effective = await settings();
      warn(effective);
      const { configuration, database, temporaryDirectory } = effective;
      const { credentials } = environment;
      return await host.openApplication(
        { ...opening, purpose: command, configuration, database, limits, temporaryDirectory, credentials },
        call,
      );
    },
    async openStoreCheck(file) {
      if (options.config !== undefined && options.config !== file) {
        throw new StowageError("INPUT_INVALID", { what: "two configuration files: FILE and --config" });
      }
      const effective = await resolveSettings({ ...options, config: file }, environment, limits);
      warn(effective);
      return await host.openStoreCheck(effective, call);
    },
    async openMigrator(files) {
      const { resolveMigrationSettings } = await import("./migration-settings.ts");
      const effective = await resolveMigrationSettings(files, options, environment, limits);
      for (const each of effective.files) warn(each);
      return { migrator: await host.openMigrator(effective, call), destination: effective.destination };
    },
    async openMigrationJournal() {
      const effective = await settings();
      warn(effective);
      return await host.openMigrationJournal(effective.database, call);
    },
    async findLayerCache() {
      const effective = await settings();
      warn(effective);
      const { findLayerCache } = await import("../app/index.ts");
      return await findLayerCache(effective, call);
    },
    async startProgress() {
      if (options.quiet) return nothingShown;
      display = await createDisplay(format, options, host);
      return display;
    },
    [Symbol.dispose]() {
      display?.[Symbol.dispose]();
      display = undefined;
    },
  };
}

const nothingShown: SeveralProgress = {
  ...silentProgress,
  plan() {},
  beginSource: () => silentProgress,
  endSource() {},
};

async function createDisplay(format: "table" | "json", options: GlobalOptions, host: Host): Promise<ProgressDisplay> {
  const write = (text: string) => {
    host.stderr.write(maskSecrets(text));
  };
  if (host.stderr.isTTY && !host.environment.isTerminalDumb) {
    const { createTerminalProgress } = await import("./progress/terminal.ts");
    return createTerminalProgress(host.stderr, colorsFor(host.stderr, options, host.environment), systemTicker);
  }
  if (format === "json") {
    const { createJsonProgress } = await import("./progress/json-lines.ts");
    return createJsonProgress(write, systemTicker);
  }
  const { createLineProgress } = await import("./progress/lines.ts");
  return createLineProgress(write, systemTicker);
}
