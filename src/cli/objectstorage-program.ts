import type { Command } from "commander";
import { addExamples } from "./examples.ts";
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
        "Does all that stowage needs at both stores of a configuration file, on test documents of its own: connects, writes, reads back, compares, tries to overwrite, lists, deletes. Says which step fails and what is missing. Nothing else is touched. The exit code is 1 when a step fails, 2 when the file is wrong, 3 when a store or the database can't be reached.",
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
}
