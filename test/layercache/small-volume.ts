import { spawnSync } from "node:child_process";
import { mkdtempSync, rmdirSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A file system of its own, in memory. */
export interface SmallVolume extends Disposable {
  readonly path: string;
  /** What is taken up at this instant, open files without a name too. */
  use(): number;
  makeReadOnly(): void;
}

/** `undefined` where the machine allows no mount. */
export function mountSmallVolume(bytes: number): SmallVolume | undefined {
  if (process.platform !== "linux" || process.geteuid?.() !== 0) return undefined;
  const path = mkdtempSync(join(tmpdir(), "stowage-test-volume-"));
  const mount = (...parameters: string[]) => spawnSync("mount", [...parameters, path]).status === 0;
  if (!mount("-t", "tmpfs", "-o", `size=${bytes},mode=700`, "tmpfs")) {
    rmdirSync(path);
    return undefined;
  }
  return {
    path,
    use() {
      const { blocks, bfree, bsize } = statfsSync(path);
      return (blocks - bfree) * bsize;
    },
    makeReadOnly() {
      if (!mount("-o", "remount,ro")) throw new Error("it can't be mounted read-only");
    },
    [Symbol.dispose]() {
      // What is still open there keeps it only until it is closed.
      spawnSync("umount", ["-l", path]);
      rmdirSync(path);
    },
  };
}
