import type { ApplicationOptions } from "../app/index.ts";
import {
  type Configuration,
  type ConfigurationValue,
  defaultConfiguration,
  defaultLimits,
  type Environment,
  findConfigurationFile,
  type Limits,
  parseLimits,
  readConfiguration,
  type Source,
  shownDatabaseUrl,
} from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import type { GlobalOptions } from "./program.ts";

/** What holds for a command: options before environment before file before defaults. */
export interface Settings {
  readonly configuration: Configuration;
  readonly database: ApplicationOptions["database"];
  readonly temporaryDirectory: string;
  /** All of it in the terms in which it can be set. */
  readonly values: readonly ConfigurationValue[];
  /** What a person should know who gave these options. */
  readonly warnings: readonly string[];
}

const unset: Source = { kind: "default" };

/** @throws StowageError `CONFIG_INVALID` */
export async function resolveSettings(
  options: GlobalOptions,
  environment: Environment,
  limits: Limits,
): Promise<Settings> {
  const { variables } = environment.configuration;
  const configuration = await configurationOf(options, environment);
  const { database, source, isFromFile, warnings } = databaseOf(options, environment, configuration);
  const directorySource = sourceOf("--data-dir", options.dataDir, "STOWAGE_DATA_DIR", variables.STOWAGE_DATA_DIR);
  const temporaryDirectory = configuration.temporaryDirectory ?? environment.temporaryDirectory;
  const values: ConfigurationValue[] = [
    {
      key: "database",
      value: database.kind === "server" ? shownDatabaseUrl(database.url) : "embedded",
      source,
    },
    ...(database.kind === "embedded"
      ? [{ key: "data_dir", value: database.dataDirectory, source: directorySource }]
      : []),
    ...configuration.values.filter(({ key }) => isFromFile || !key.startsWith("credentials.database.")),
    ...(configuration.temporaryDirectory === undefined
      ? [{ key: "tmp_dir", value: temporaryDirectory, source: sourceOf("", undefined, "TMPDIR", variables.TMPDIR) }]
      : []),
    ...limitValues(options, environment, limits),
    {
      key: "log_level",
      value: options.logLevel ?? environment.logLevel,
      source: sourceOf("--log-level", options.logLevel, "STOWAGE_LOG_LEVEL", variables.STOWAGE_LOG_LEVEL),
    },
  ];
  return { configuration, database, temporaryDirectory, values, warnings };
}

async function configurationOf(options: GlobalOptions, environment: Environment): Promise<Configuration> {
  if (options.config === "") throw new StowageError("CONFIG_INVALID", { key: "--config", reason: "it is empty" });
  const file =
    options.config ?? environment.configuration.file ?? (await findConfigurationFile(environment.configuration));
  return file === undefined ? defaultConfiguration : await readConfigurationFile(file, environment);
}

/** @throws StowageError `CONFIG_INVALID` */
export async function readConfigurationFile(file: string, environment: Environment): Promise<Configuration> {
  // Drivers bring schemas, and schemas take their time to load.
  const { loadDrivers } = await import("../app/index.ts");
  return await readConfiguration(file, environment.configuration, await loadDrivers());
}

function databaseOf(
  options: GlobalOptions,
  environment: Environment,
  { database, file, values }: Configuration,
): {
  readonly database: ApplicationOptions["database"];
  readonly source: Source;
  readonly isFromFile: boolean;
  readonly warnings: readonly string[];
} {
  const server = (url: string, source: Source) => ({
    database: { kind: "server", url } as const,
    source,
    isFromFile: false,
    warnings: [],
  });
  if (options.dbConnect !== undefined) return server(options.dbConnect, { kind: "option", name: "--db-connect" });
  if (options.dataDir === undefined && environment.databaseUrl !== undefined) {
    return server(environment.databaseUrl, { kind: "variable", name: "STOWAGE_DB_CONNECT" });
  }
  if (database !== undefined) {
    const isUnused = options.dataDir !== undefined;
    return {
      database: { kind: "server", url: database.url.reveal(), settings: database.settings },
      source: values.find(({ key }) => /^credentials[.]database[.](db_connect|host)$/.test(key))?.source ?? unset,
      isFromFile: true,
      warnings: isUnused ? [`--data-dir is not used: ${file} names a database`] : [],
    };
  }
  const { STOWAGE_DATA_DIR } = environment.configuration.variables;
  return {
    database: { kind: "embedded", dataDirectory: options.dataDir ?? environment.dataDirectory },
    source: sourceOf("--data-dir", options.dataDir, "STOWAGE_DATA_DIR", STOWAGE_DATA_DIR),
    isFromFile: false,
    warnings: [],
  };
}

/** Those that somebody has set. */
function limitValues(options: GlobalOptions, environment: Environment, limits: Limits): readonly ConfigurationValue[] {
  const ofEnvironment = parseLimits(environment.limits);
  const named = new Set((options.limit ?? []).map((setting) => setting.split("=", 1)[0]?.trim()));
  return Object.entries(limits).flatMap(([name, value]): readonly ConfigurationValue[] => {
    const key = `limits.${name}`;
    if (named.has(name)) return [{ key, value, source: { kind: "option", name: "--limit" } }];
    const isSet = ofEnvironment[name as keyof Limits] !== defaultLimits[name as keyof Limits];
    return isSet ? [{ key, value, source: { kind: "variable", name: "STOWAGE_LIMITS" } }] : [];
  });
}

function sourceOf(option: string, given: string | undefined, variable: string, value: string | undefined): Source {
  if (given !== undefined) return { kind: "option", name: option };
  return value ? { kind: "variable", name: variable } : unset;
}
