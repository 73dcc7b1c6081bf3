import { accessSync, constants } from "node:fs";
import { join } from "node:path";

/** The first executable of that name on the search path, if there is one. */
export function findProgram(name: string, directories = (process.env.PATH ?? "").split(":")): string | undefined {
  return directories.map((directory) => join(directory, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
