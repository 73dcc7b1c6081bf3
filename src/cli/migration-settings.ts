import { resolve } from "node:path";
import type { MigratorOptions } from "../app/index.ts";
import { databasePlace, type Environment, type Limits, shownDatabaseUrl } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import type { GlobalOptions } from "./program.ts";
import { resolveSettings, type Settings } from "./settings.ts";

export interface MigrationSettings extends MigratorOptions {
  /** The two files, each with its own warnings. */
  readonly files: readonly Settings[];
}

/**
 * What two configuration files and the options say of a migration. It concerns one database: all that name one must name the same.
 * @throws StowageError `CONFIG_INVALID`, `INPUT_INVALID`
 */
export async function resolveMigrationSettings(
  [sourceFile, destinationFile]: readonly [string, string],
  options: GlobalOptions,
  environment: Environment,
  limits: Limits,
): Promise<MigrationSettings> {
  if (options.config !== undefined) {
    throw new StowageError("INPUT_INVALID", {
      what: "three configuration files: SRC-CONFIG, DEST-CONFIG and --config",
    });
  }
  const source = await resolveSettings({ ...options, config: sourceFile }, environment, limits);
  const destination = await resolveSettings({ ...options, config: destinationFile }, environment, limits);
  refuseOtherDatabases([
    { where: "--db-connect", url: options.dbConnect },
    { where: "STOWAGE_DB_CONNECT", url: (options.dbConnect ?? options.dataDir) ? undefined : environment.databaseUrl },
    { where: destinationFile, url: destination.configuration.database?.url.reveal() },
    { where: sourceFile, url: source.configuration.database?.url.reveal() },
  ]);
  const { database } = destination.database.kind === "server" ? destination : source;
  return {
    source: source.configuration,
    destination: destination.configuration,
    database,
    files: [source, destination],
  };
}

/** @throws StowageError `CONFIG_INVALID` */
function refuseOtherDatabases(named: readonly { readonly where: string; readonly url: string | undefined }[]): void {
  const [first, ...others] = named.flatMap(({ where, url }) => (url === undefined ? [] : [{ where, url }]));
  for (const other of others) {
    if (first === undefined || databasePlace(first.url) === databasePlace(other.url)) continue;
    const reason = `it names the database ${shownDatabaseUrl(other.url)}, and ${first.where} names ${shownDatabaseUrl(first.url)}`;
    throw new StowageError(
      "CONFIG_INVALID",
      { file: other.where, key: "credentials.database", reason },
      { hint: "objects are migrated within one database: name the same one everywhere, or in one place only" },
    );
  }
}

/** As a journal keeps them: wherever the next command is run. */
export function absolute([source, destination]: readonly [string, string]): readonly [string, string] {
  return [resolve(source), resolve(destination)];
}
