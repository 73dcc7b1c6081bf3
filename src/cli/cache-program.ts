import type { Command } from "commander";
import { addExamples } from "./examples.ts";
import type { Start } from "./program.ts";

/** `stowage cache …`: the blobs of layers that registries sent. */
export function addCache(program: Command, start: Start): void {
  const cache = program
    .command("cache")
    .summary("look after the layer cache")
    .description(
      "The layer cache keeps blobs that registries sent, in anchore_layercache under tmp_dir, where services.analyzer.layer_cache_enable turns it on. No database is opened, and analyses may go on meanwhile. Where there is no such directory there is nothing to do, and the exit code is 0.",
    );
  addExamples(cache, [
    { command: "stowage cache stats", does: "how full is it?" },
    { command: "stowage cache verify", does: "is what it keeps still right?" },
    { command: "stowage cache clear", does: "drop all of it" },
  ]);

  addExamples(
    cache
      .command("stats")
      .summary("show how much the cache holds")
      .description(
        "Shows what the cache holds and what counts against its limit: the layers, room for downloads that are under way, and files that the cache did not make.",
      )
      .action((_options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/cache-stats.ts")).cacheStats(context),
        ),
      ),
    [
      { command: "stowage cache stats", does: "for a person" },
      { command: "stowage cache stats -o json | jq .bytesCounted", does: "one number" },
    ],
  );

  addExamples(
    cache
      .command("list")
      .summary("list the layers in the cache")
      .description("Lists the layers in the order in which they go out: the least recently used first.")
      .action((_options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/cache-list.ts")).cacheList(context),
        ),
      ),
    [
      { command: "stowage cache list", does: "as a table" },
      { command: "stowage cache list -o json | jq -r '.entries[].digest'", does: "their digests" },
    ],
  );

  addExamples(
    cache
      .command("trim")
      .summary("make the cache smaller")
      .description(
        "Drops layers, the least recently used first, until the cache takes up no more than SIZE. Layers that an analysis reads just now stay. The limit of the configuration is not changed by it.",
      )
      .option("--to <SIZE>", "what may be left: bytes, or 500MB, 2.5GB, 1GiB (default: layer_cache_max_gigabytes)")
      .action((options: TrimFlags, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/cache-trim.ts")).cacheTrim(context, options),
        ),
      ),
    [
      { command: "stowage cache trim --to 500MB", does: "to 500,000,000 bytes" },
      { command: "stowage cache trim", does: "to the limit, after it was lowered" },
    ],
  );

  addExamples(
    cache
      .command("verify")
      .summary("read the whole cache and drop what is damaged")
      .description(
        "Reads every layer in the cache, compares it with its digest, and drops what is damaged: the exit code is then 1. It is never needed, since every layer is compared whenever it is used. Files that the cache did not make are named and left alone.",
      )
      .action((_options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/cache-verify.ts")).cacheVerify(context),
        ),
      ),
    [
      { command: "stowage cache verify", does: "with progress" },
      { command: "stowage cache verify -o json | jq '.damaged'", does: "what was damaged" },
    ],
  );

  addExamples(
    cache
      .command("clear")
      .summary("drop everything in the cache")
      .description(
        "Drops every layer that no analysis reads just now. It does not ask: nothing is lost that a registry has not got. Files that the cache did not make stay.",
      )
      .action((_options: object, command: Command) =>
        start(command.optsWithGlobals(), async (context) =>
          (await import("./commands/cache-clear.ts")).cacheClear(context),
        ),
      ),
    [
      { command: "stowage cache clear", does: "drop everything" },
      { command: "stowage --config other.yaml cache clear", does: "that of another configuration" },
    ],
  );
}

export interface TrimFlags {
  readonly to?: string;
}
