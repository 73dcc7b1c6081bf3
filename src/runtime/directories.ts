import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * Makes a directory and what is missing above it. Step by step: where a file system says that a parent is not there and won't have it made (`/proc/x/y`),
 * Node's own `recursive` tries for ever, and no signal ends it.
 *
 * @returns the topmost directory that was made, if any was
 * @throws what the file system said; `EEXIST` where a file has the name
 */
export async function makeDirectories(path: string, mode: number): Promise<string | undefined> {
  try {
    return await makeOne(path, mode);
  } catch (error) {
    const parent = dirname(path);
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || parent === path) throw error;
    const first = await makeDirectories(parent, mode);
    const made = await makeOne(path, mode);
    return first ?? made;
  }
}

async function makeOne(path: string, mode: number): Promise<string | undefined> {
  try {
    await mkdir(path, { mode });
    return path;
  } catch (error) {
    const isThere = (error as NodeJS.ErrnoException).code === "EEXIST" && (await stat(path)).isDirectory();
    if (!isThere) throw error;
    return undefined;
  }
}
