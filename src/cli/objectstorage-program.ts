import type { Command } from "commander";
import { addExamples } from "./examples.ts";
import { addMigrations } from "./migration-program.ts";
import type { Start } from "./program.ts";

/** `stowage objectstorage …`, under the names that users know. */
export function addObjectStorage(program: Command, start: Start): void {
  const objectstorage = program
    .command("objectstorage")
    .summary("look after the stores that hold the documents")
    .description(
      "The stores are those of the configuration file: services.catalog.object_store and .analysis_archive; without one, the database.",
    );
  addExamples(objectstorage, [
    { command: "stowage objectstorage check config.yaml", does: "can these stores be used?" },
    { command: "stowage objectstorage usage", does: "what takes how much space" },
    { command: "stowage objectstorage scrub", does: "is everything still there and right?" },
  ]);

  addExamples(
    objectstorage
      .command("list-drivers")
      .summary("list the storage drivers")
      .description("Lists the drivers that storage_driver.name can name. No database is opened.")
      .action((_options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/objectstorage-list-drivers.ts")).objectstorageListDrivers(context),
        ),
      ),
    [
      { command: "stowage objectstorage list-drivers", does: "as a table" },
      { command: "stowage objectstorage list-drivers -o json | jq -r '.drivers[].name'", does: "their names" },
    ],
  );

  addExamples(
    objectstorage
      .command("check")
      .summary("try whether the stores of a configuration can be used")
      .description(
        "Does all that stowage needs at both stores of a configuration file, on test documents of its own: connects, writes, reads back, compares, tries to overwrite, lists, deletes. Says which step fails and what is missing. Nothing else is touched, but that the schema in the database is made or brought up to date, as by any command. The exit code is 1 when a step fails, 2 when the file is wrong, 3 when a store or the database can't be reached.",
      )
      .argument("<FILE>", "the configuration file; its database is used, or that of --db-connect or --data-dir")
      .action((file: string, _options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/objectstorage-check.ts")).objectstorageCheck(context, file),
        ),
      ),
    [
      { command: "stowage objectstorage check config.yaml", does: "step by step" },
      {
        command: "stowage objectstorage --db-connect postgresql://u@h/d check config.yaml",
        does: "with another database",
      },
      { command: "stowage objectstorage check config.yaml -o json", does: "for a program" },
    ],
  );

  addExamples(
    objectstorage
      .command("usage")
      .summary("show what is kept and how much space it takes")
      .description(
        "Shows objects and bytes by backend, bucket, codec, state, account and age, and the size of the database. Every backend of the configuration is listed and compared with what is recorded: HELD is all that lies there, whatever its name, EXPLAINED the share of it that belongs to recorded objects and to writes that are known, MISSING counts recorded objects whose bytes are not there. The exit code is 1 when a backend could not be listed.",
      )
      .option("--no-list", "do not list the backends: much faster, without HELD, EXPLAINED and MISSING")
      .action((options: UsageFlags, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/objectstorage-usage.ts")).objectstorageUsage(context, options),
        ),
      ),
    [
      { command: "stowage objectstorage usage", does: "as tables" },
      { command: "stowage objectstorage usage --no-list -o json | jq .database.bytes", does: "one number" },
    ],
  );

  addExamples(
    objectstorage
      .command("gc")
      .summary("reclaim the space of what nothing needs")
      .description(
        "Deletes the bytes of deleted and replaced documents, of writers that died, and of layers that no image stands on. What may still be read or written waits: 15 minutes after it was deleted, or until its writer's lease ends. It is safe beside everything else, and commands that write do a little of it themselves. In PostgreSQL the space is free for new documents; --compact gives it back to the operating system.",
      )
      .option("--dry-run", "show what would be reclaimed, now and later, and change nothing")
      .option(
        "--exclusive",
        "wait for nothing: take the store for this command alone, or refuse while others have it open",
      )
      .option(
        "--compact",
        "write the database's object tables anew without free space; locks each meanwhile, and needs room for its new form",
      )
      .action((options: GcFlags, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/objectstorage-gc.ts")).objectstorageGc(context, options),
        ),
      ),
    [
      { command: "stowage objectstorage gc --dry-run", does: "what could be reclaimed?" },
      { command: "stowage objectstorage gc", does: "reclaim it" },
      { command: "stowage objectstorage gc --exclusive", does: "all of it, at once, while nobody else is at work" },
      { command: "stowage objectstorage gc --compact", does: "and make the database's files smaller" },
    ],
  );

  addExamples(
    objectstorage
      .command("scrub")
      .summary("read everything back and compare it with what was recorded")
      .description(
        "Reads all objects back, and finds those that are missing, damaged or cut off, that are another object's, and whatever else lies there. An interrupted scrub goes on where it was. The exit code is 1 while anything is damaged or can't be read, an image has to be analysed again, or a backend could not be looked at.",
      )
      .option(
        "--sample <PERCENT>",
        "read only so many of the objects, chosen by chance; what is missing is found all the same",
      )
      .option("--max-rate <BYTES>", "read at most so many bytes per second; k, m and g multiply by 1,024 each")
      .option(
        "--repair",
        "mend from a copy where there is one; else forget the layer, or mark the image to be analysed again",
      )
      .option("--restart", "begin anew instead of going on with an interrupted scrub")
      .action((options: ScrubFlags, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/objectstorage-scrub.ts")).objectstorageScrub(context, options),
        ),
      ),
    [
      { command: "stowage objectstorage scrub", does: "everything" },
      { command: "stowage objectstorage scrub --sample 5 --max-rate 20m", does: "a little, slowly" },
      { command: "stowage objectstorage scrub --repair", does: "and mend what can be mended" },
    ],
  );

  addExamples(
    objectstorage
      .command("claim")
      .summary("make the stores this database's after it was moved or restored")
      .description(
        "Each store says by a marker which database it belongs to. A database that was restored or copied may read there, but it deletes nothing until it has claimed the stores. Afterwards every other copy of it is refused. Stores of another installation can't be claimed. Asks first.",
      )
      .option("-y, --yes", "do not ask")
      .action((options: ClaimFlags, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/objectstorage-claim.ts")).objectstorageClaim(context, options),
        ),
      ),
    [
      { command: "stowage objectstorage claim", does: "asks first" },
      { command: "stowage objectstorage claim --yes", does: "does not ask" },
    ],
  );
  addMigrations(objectstorage, start);
}

export interface UsageFlags {
  /** False for `--no-list`. */
  readonly list: boolean;
}

export interface GcFlags {
  readonly dryRun?: boolean;
  readonly compact?: boolean;
  readonly exclusive?: boolean;
}

export interface ScrubFlags {
  readonly sample?: string;
  readonly maxRate?: string;
  readonly repair?: boolean;
  readonly restart?: boolean;
}

export interface ClaimFlags {
  readonly yes?: boolean;
}
