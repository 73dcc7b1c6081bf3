import type { CacheRemoval } from "../layercache/index.ts";
import { plural } from "../runtime/index.ts";
import type { Context } from "./context.ts";
import { formatBytes } from "./format.ts";

export const nothingRemoved: CacheRemoval = { entries: 0, bytes: 0, entriesInUse: 0 };

/** Says to a person what has gone, and what could not. */
export async function writeRemoval({ output }: Context, { entries, bytes, entriesInUse }: CacheRemoval): Promise<void> {
  await output.write(
    entries === 0 ? "nothing was dropped\n" : `dropped ${plural(entries, "layer")}, ${formatBytes(bytes)}\n`,
  );
  if (entriesInUse > 0) {
    const [stay, them] = entriesInUse === 1 ? ["stays", "it"] : ["stay", "them"];
    await output.write(`${plural(entriesInUse, "layer")} ${stay}: an analysis reads ${them}\n`);
  }
  await output.flush();
}
