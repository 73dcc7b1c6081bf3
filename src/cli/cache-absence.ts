import type { FoundLayerCache } from "../app/index.ts";
import type { Context } from "./context.ts";
import { printable } from "./printable.ts";

/** Says that there is no cache, to a person. */
export async function writeNoCache({ output }: Context, { directory, isEnabled }: FoundLayerCache): Promise<void> {
  const why = isEnabled
    ? "it is made when an image of a registry is analysed"
    : "services.analyzer.layer_cache_enable turns it on";
  await output.write(`there is no layer cache: ${printable(directory)} is not there (${why})\n`);
  await output.flush();
}
