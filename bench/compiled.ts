import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { asPublished } from "./stowage.ts";

/**
 * A program of the bench's own as the published package would run it: from the sources, Node's own compiler of types would be in its figures, 25 MB and
 * some hundred milliseconds.
 * @returns the command line, without parameters
 */
export function compiled(name: string, source: string): readonly string[] {
  const directory = join(import.meta.dirname, "../dist/bench");
  execFileSync(process.execPath, [join(import.meta.dirname, "bundle.ts"), name, source, directory]);
  return [...asPublished, join(directory, `${name}.js`)];
}
