import { Command, Option } from "commander";
import { addCache } from "./cache-program.ts";
import type { Context } from "./context.ts";
import { addExamples } from "./examples.ts";
import { addObjectStorage } from "./objectstorage-program.ts";

/** Options that every command takes, before or after its name. */
export interface GlobalOptions {
  readonly config?: string;
  readonly dataDir?: string;
  readonly dbConnect?: string;
  readonly limit?: readonly string[];
  readonly logLevel?: string;
  readonly quiet?: boolean;
  readonly output?: "table" | "json";
  /** False for `--no-color`. */
  readonly color?: boolean;
}

export const logLevels = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;

/** Runs a command's work with a context made from the global options. */
export type Start = (options: GlobalOptions, work: (context: Context) => Promise<void>) => Promise<void>;

const contentTypes = ["os", "apk", "dpkg", "rpm", "npm", "python", "files"] as const;
export type ContentType = (typeof contentTypes)[number];

/**
 * All commands, their options and help texts. Each command's work is loaded when it is run.
 * Errors and help are thrown as CommanderError; nothing here ends the process.
 */
export function createProgram(version: string, start: Start): Command {
  const program = new Command("stowage")
    .description("Keeps what is known about container images: packages, files with digests, findings.")
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "explain a command")
    .helpCommand("help [COMMAND]", "explain a command")
    .configureHelp({ showGlobalOptions: true, styleTitle: (title) => title })
    .exitOverride()
    .option(
      "--config <FILE>",
      "configuration file (STOWAGE_CONFIG; default: stowage/config.yaml in the configuration directory, if it is there)",
    )
    .option("--data-dir <DIR>", "directory of the embedded database (STOWAGE_DATA_DIR; default: the platform's own)")
    .addOption(
      new Option(
        "--db-connect <URL>",
        "use this PostgreSQL instead: postgresql://USER@HOST/DB (STOWAGE_DB_CONNECT)",
      ).conflicts("dataDir"),
    )
    .option("--limit <NAME=VALUE>", "change a limit; may be repeated (STOWAGE_LIMITS)", collect)
    .addOption(
      new Option("--log-level <LEVEL>", "what is logged to standard error (STOWAGE_LOG_LEVEL)").choices(logLevels),
    )
    .option("-q, --quiet", "no progress")
    .addOption(new Option("-o, --output <FORMAT>", "form of the result").choices(["table", "json"]).default("table"))
    .option("--no-color", "no colours, as with NO_COLOR; FORCE_COLOR asks for them");
  addExamples(program, [
    { command: "stowage analyze alpine:3.20", does: "analyse an image of a registry" },
    { command: "stowage image list", does: "list the images that were analysed" },
    { command: "stowage image content alpine:3.20 os", does: "list the packages of one" },
  ]);

  addExamples(
    program
      .command("analyze")
      .summary("analyse images and keep what was found")
      .description(
        "Reads every layer of an image once, and keeps its packages, files and digests. Layers that were read before are not read again. Of several images one that fails stops no other; a table says what became of each, and the exit code is 0 when all are done, that of the errors where all have the same, else 1.",
      )
      .argument(
        "[SOURCE...]",
        "REGISTRY/REPOSITORY:TAG, REPOSITORY@DIGEST, oci:DIR[:REF], oci-archive:FILE[:REF] or docker-archive:FILE[:REF]",
      )
      .option(
        "--from-file <LIST>",
        "also the sources that this file names, one on each line; empty lines and lines that begin with # mean nothing, - is standard input",
      )
      .option("--all-tags <REPOSITORY>", "also all tags of this repository at its registry; may be repeated", collect)
      .option("--platform <OS/ARCH>", "which platform of several: OS/ARCHITECTURE[/VARIANT]")
      .option("--name <REPOSITORY:TAG>", "keep the image under this name; for one source only")
      .option("--insecure", "allow plain HTTP and unverified certificates for registries")
      .action((sources: readonly string[], options: AnalyzeFlags, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/analyze.ts")).analyze(context, sources, options),
        ),
      ),
    [
      { command: "stowage analyze debian:12-slim", does: "from Docker Hub" },
      { command: "stowage analyze ghcr.io/a/b@sha256:… --platform linux/arm64", does: "by digest, another platform" },
      { command: "stowage analyze localhost:5000/x:1", does: "from a registry on this machine" },
      { command: "stowage analyze oci:./layout:1.0 --name example.com/x:1.0", does: "from an OCI layout" },
      { command: "stowage analyze docker-archive:image.tar -o json", does: "what `docker save` wrote; result as JSON" },
      { command: "stowage analyze alpine:3.19 alpine:3.20 oci:./layout", does: "several at once" },
      { command: "stowage analyze --from-file images.txt -o json", does: "those of a list" },
      { command: "stowage analyze --all-tags ghcr.io/a/b", does: "all tags of a repository" },
    ],
  );

  const image = program
    .command("image")
    .summary("look at analysed images, or delete them")
    .description("Answers from what is kept; no image is read again. IMAGE is a digest, an image id or a full tag.");
  addExamples(image, [
    { command: "stowage image list", does: "all images" },
    { command: "stowage image get alpine:3.20", does: "one image" },
  ]);

  addExamples(
    image
      .command("list")
      .summary("list images")
      .description(
        "Lists the images that were analysed, newest analysis first. On a narrow terminal some columns are left out.",
      )
      .action((_options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/image-list.ts")).imageList(context),
        ),
      ),
    [
      { command: "stowage image list", does: "as a table" },
      { command: "stowage image list -o json | jq -r '.images[].digest'", does: "their digests" },
    ],
  );

  addExamples(
    image
      .command("get")
      .summary("show what is known of an image")
      .description(
        "Shows an image: its layers, what was found in it, and notes where unpackers of images would disagree.",
      )
      .argument("<IMAGE>", "digest, image id or full tag")
      .action((name: string, _options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/image-get.ts")).imageGet(context, name),
        ),
      ),
    [
      { command: "stowage image get docker.io/library/alpine:3.20", does: "by tag" },
      { command: "stowage image get sha256:… -o json", does: "by digest, as JSON" },
    ],
  );

  addExamples(
    image
      .command("content")
      .summary("list packages or files of an image")
      .description(
        `Lists what is in an image. TYPE is ${contentTypes.join(", ")}; os means apk, dpkg and rpm together. In JSON, packages of the operating system come with the files that they own.`,
      )
      .argument("<IMAGE>", "digest, image id or full tag")
      .addArgument(program.createArgument("<TYPE>", "what to list").choices(contentTypes))
      .action((name: string, type: ContentType, _options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/image-content.ts")).imageContent(context, name, type),
        ),
      ),
    [
      { command: "stowage image content alpine:3.20 os", does: "packages of the operating system" },
      { command: "stowage image content alpine:3.20 files", does: "every file, with its SHA-256" },
      {
        command: "stowage image content app:1 npm -o json | jq -r '.packages[].purl'",
        does: "package URLs of npm packages",
      },
    ],
  );

  addExamples(
    image
      .command("delete")
      .summary("delete an image's analysis")
      .description(
        "Deletes what is kept of an image. On a terminal it asks first. The image itself is not touched: analysing it again brings everything back.",
      )
      .argument("<IMAGE>", "digest, image id or full tag")
      .option("-y, --yes", "do not ask")
      .action((name: string, options: DeleteFlags, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/image-delete.ts")).imageDelete(context, name, options),
        ),
      ),
    [
      { command: "stowage image delete alpine:3.20", does: "asks first" },
      { command: "stowage image delete sha256:… --yes", does: "does not ask" },
    ],
  );

  const config = program
    .command("config")
    .summary("check the configuration, or show what holds")
    .description("Reads the configuration file; no database and no store is opened.");
  addExamples(config, [
    { command: "stowage config validate config.yaml", does: "is it right?" },
    { command: "stowage config show", does: "what holds, and why" },
  ]);

  addExamples(
    config
      .command("validate")
      .summary("check a configuration file")
      .description(
        "Checks every key and value of a configuration file, and shows warnings. What is wrong is named with its line; the exit code is then 2. Variables must be set as they will be.",
      )
      .argument("<FILE>", "the configuration file")
      .action((file: string, _options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/config-validate.ts")).configValidate(context, file),
        ),
      ),
    [
      { command: "stowage config validate config.yaml", does: "check it" },
      { command: "stowage config validate config.yaml -o json", does: "the same for a program" },
    ],
  );

  addExamples(
    config
      .command("show")
      .summary("show the effective configuration")
      .description(
        "Shows every value that holds and where it comes from: an option, a variable, a line of the configuration file, or a default. Secrets are masked.",
      )
      .action((_options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/config-show.ts")).configShow(context),
        ),
      ),
    [
      { command: "stowage config show", does: "as a table" },
      { command: "stowage --config other.yaml config show -o json", does: "another file, as JSON" },
    ],
  );
  addObjectStorage(program, start);
  addCache(program, start);
  return program;
}

export interface AnalyzeFlags {
  readonly fromFile?: string;
  readonly allTags?: readonly string[];
  readonly platform?: string;
  readonly name?: string;
  readonly insecure?: boolean;
}

export interface DeleteFlags {
  readonly yes?: boolean;
}

/** The program and all commands below it. */
export function* everyCommand(command: Command): Iterable<Command> {
  yield command;
  for (const child of command.commands) yield* everyCommand(child);
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}
