import { type Command, Option } from "commander";
import { addExamples } from "./examples.ts";
import type { Start } from "./program.ts";

/** `stowage objectstorage migrate` and what belongs to it, under the names that users know. */
export function addMigrations(objectstorage: Command, start: Start): void {
  addExamples(
    withPace(
      objectstorage
        .command("migrate")
        .summary("move the documents to the stores of another configuration")
        .description(
          "Copies every document from the stores of SRC-CONFIG to those of DEST-CONFIG, reads it back, lets it be found there and only then deletes it at its source. What would go where is shown first. Documents are selected by where they are recorded to lie: without flags all that lie in SRC's object_store go to DEST's object_store, those of bucket analysis_archive to DEST's analysis_archive if it has one. An interrupted migration goes on with the same command. The exit code is 0 only if every selected document is at its destination, verified, and gone from its source; 1 when some are left.",
        )
        .argument("<SRC-CONFIG>", "the configuration file that was used until now")
        .argument("<DEST-CONFIG>", "the configuration file that will be used from now on")
        .option("--from-analysis-archive", "move what lies in SRC's analysis_archive")
        .option(
          "--to-analysis-archive",
          "move to DEST's analysis_archive: documents of bucket analysis_archive, others only where --bucket names them",
        )
        .option("--bucket <NAME>", "only documents of this bucket; may be repeated", collect)
        .option("--account <NAME>", "only documents of this account")
        .option("--since <DATE>", "only documents stored at or after this ISO 8601 date or time (UTC)")
        .option("--until <DATE>", "only documents stored before it")
        .option("--nodelete", "leave the bytes at the source")
        .option("--online", "while other processes go on: they must know both stores")
        .addOption(
          new Option(
            "--verify <HOW>",
            "readback: read back, decode and compare the content's digest; checksum: compare the stored bytes only",
          )
            .choices(["readback", "checksum"])
            .default("readback"),
        )
        .option("--dry-run", "show what would move and how long it would take, try all stores, and move nothing")
        .option("--write-config <FILE>", "write the storage sections of DEST-CONFIG to a new file when all is done"),
    ).action((source: string, destination: string, options: MigrateFlags, command: Command) =>
      start(command.optsWithGlobals(), async (context) =>
        (await import("./commands/objectstorage-migrate.ts")).objectstorageMigrate(
          context,
          [source, destination],
          options,
        ),
      ),
    ),
    [
      { command: "stowage objectstorage migrate --dry-run old.yaml new.yaml", does: "what would move?" },
      { command: "stowage objectstorage migrate old.yaml new.yaml", does: "asks first" },
      {
        command: "stowage objectstorage migrate --to-analysis-archive --bucket analysis_archive old.yaml new.yaml",
        does: "archived analyses to a store of their own",
      },
    ],
  );

  addExamples(
    objectstorage
      .command("list-migrations")
      .summary("list all migrations")
      .description("Lists migrations, the oldest first. One that runs with no process at it is shown as interrupted.")
      .action((_options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/objectstorage-list-migrations.ts")).objectstorageListMigrations(context),
        ),
      ),
    [
      { command: "stowage objectstorage list-migrations", does: "as a table" },
      {
        command: "stowage objectstorage list-migrations -o json | jq .migrations[-1].state",
        does: "how the last one ended",
      },
    ],
  );

  const migration = objectstorage
    .command("migration")
    .summary("show a migration, go on with it, or end it")
    .description("Migrations have numbers: list-migrations shows them.");
  addExamples(migration, [
    { command: "stowage objectstorage migration show 3", does: "what could not be moved, and why" },
    { command: "stowage objectstorage migration resume 3", does: "try just these again" },
  ]);

  addExamples(
    migration
      .command("show")
      .summary("show a migration and everything that could not be moved")
      .description("Shows how far a migration is, and every document that could not go on with the last reason.")
      .argument("<ID>", "its number")
      .action((id: string, _options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/objectstorage-migration-show.ts")).objectstorageMigrationShow(context, id),
        ),
      ),
    [
      { command: "stowage objectstorage migration show 3", does: "as tables" },
      {
        command: "stowage objectstorage migration show 3 -o json | jq -r '.failures[].key'",
        does: "keys of what failed",
      },
    ],
  );

  addExamples(
    withPace(
      migration
        .command("resume")
        .summary("go on with an interrupted or incomplete migration")
        .description(
          "Goes on where a migration was: nothing that was verified is copied again, and what failed is tried again. The configuration files are those that it was begun with, unless others are given.",
        )
        .argument("<ID>", "its number")
        .argument("[SRC-CONFIG]", "another file for the source")
        .argument("[DEST-CONFIG]", "another file for the destination")
        .option("--write-config <FILE>", "write the storage sections of DEST-CONFIG to a new file when all is done"),
    ).action(
      (
        id: string,
        source: string | undefined,
        destination: string | undefined,
        options: ResumeFlags,
        command: Command,
      ) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/objectstorage-migration-resume.ts")).objectstorageMigrationResume(
            context,
            id,
            [source, destination],
            options,
          ),
        ),
    ),
    [
      { command: "stowage objectstorage migration resume 3", does: "asks first" },
      { command: "stowage objectstorage migration resume 3 -y --max-rate 20m", does: "slowly, without asking" },
    ],
  );

  addExamples(
    migration
      .command("cancel")
      .summary("end a migration where it is")
      .description(
        "What has been moved stays at the destination, all else at the source; everything can be read with a configuration that names both. To bring it back, migrate with the files swapped.",
      )
      .argument("<ID>", "its number")
      .action((id: string, _options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/objectstorage-migration-cancel.ts")).objectstorageMigrationCancel(context, id),
        ),
      ),
    [{ command: "stowage objectstorage migration cancel 3", does: "end it" }],
  );
}

function withPace(command: Command): Command {
  return command
    .option(
      "--concurrency <N>",
      "documents copied at once, and as many read back: a number, or auto to follow the backends, and online the readers",
      "auto",
    )
    .option("--max-rate <BYTES>", "copy at most so many bytes per second; k, m and g multiply by 1,024 each")
    .option("-y, --dontask", "do not ask")
    .addOption(new Option("--yes", "do not ask").hideHelp());
}

export interface ResumeFlags {
  readonly concurrency: string;
  readonly maxRate?: string;
  readonly dontask?: boolean;
  readonly yes?: boolean;
  readonly writeConfig?: string;
}

export interface MigrateFlags extends ResumeFlags {
  readonly fromAnalysisArchive?: boolean;
  readonly toAnalysisArchive?: boolean;
  readonly bucket?: readonly string[];
  readonly account?: string;
  readonly since?: string;
  readonly until?: string;
  readonly nodelete?: boolean;
  readonly online?: boolean;
  readonly verify: "readback" | "checksum";
  readonly dryRun?: boolean;
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}
