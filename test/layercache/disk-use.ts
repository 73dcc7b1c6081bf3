import { type BigIntStats, lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** What lies in a directory takes up on the disk, everything in it counted. */
export function diskUse(directory: string): number {
  return sum([...look(directory).values()]);
}

/**
 * The same while others change the directory. One walk may see a file that goes before another comes, and count room twice that was never taken up twice.
 * So two walks: what is there in both was there in between, with at least the blocks that the first one saw. The result is never too high.
 */
export function diskUseAtLeast(directory: string): number {
  const before = look(directory);
  const after = look(directory);
  return sum(
    [...before].map(([identity, bytes]) => (after.has(identity) ? Math.min(bytes, after.get(identity) ?? 0) : 0)),
  );
}

/** Each file once, under whatever name, told apart from a later one in the same place. */
function look(directory: string): Map<string, number> {
  const found = new Map<string, number>();
  const walk = (path: string) => {
    let status: BigIntStats | undefined;
    let names: string[] = [];
    try {
      status = lstatSync(path, { bigint: true, throwIfNoEntry: false });
      if (status?.isDirectory()) names = readdirSync(path);
    } catch {
      // Gone meanwhile.
    }
    if (status === undefined) return;
    found.set(`${status.ino} ${status.birthtimeNs}`, Number(status.blocks) * 512);
    for (const name of names) walk(join(path, name));
  };
  walk(directory);
  return found;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
