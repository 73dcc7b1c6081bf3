import type { Call, Clock } from "../runtime/index.ts";
import { overheadOf } from "./accounting.ts";
import type { CacheDirectory } from "./cache-directory.ts";
import { IndexFile, whenFree } from "./index-file.ts";
import { type Sqlite, tryLock } from "./lock-file.ts";
import { CacheTrouble, troubleOf } from "./trouble.ts";

/**
 * Opens the index under the shared lock of all who use it. One that is damaged is made anew, by whoever is alone: another process may still count on
 * the old one.
 */
export async function openIndex(
  sqlite: Sqlite,
  directory: CacheDirectory,
  bytesMax: number,
  clock: Clock,
  locks: DisposableStack,
  call: Call,
): Promise<IndexFile> {
  const { pagesMax } = overheadOf(bytesMax);
  const open = () => IndexFile.open(sqlite, directory.index, pagesMax, clock, call);
  const share = async () => {
    const attempt = () => {
      const value = tryLock(sqlite, directory.gate, "shared");
      return value && { value };
    };
    return await whenFree(attempt, directory.gate, clock, call);
  };
  for (let attempt = 1; ; attempt++) {
    using shared = new DisposableStack();
    shared.use(await share());
    try {
      const file = await open();
      locks.use(shared.move());
      return file;
    } catch (error) {
      const trouble = troubleOf(error);
      if (trouble.kind !== "damaged" || attempt > 1) throw trouble;
      shared.dispose();
      using alone = tryLock(sqlite, directory.gate, "exclusive");
      if (alone === undefined) {
        throw new CacheTrouble("damaged", "its index is damaged, and other processes still use it", trouble);
      }
      for (const name of await directory.names("partial")) await directory.remove(directory.partial(name));
      for (const name of await directory.names("owners")) await directory.remove(directory.lockOf(name));
      await directory.remove(directory.index);
      await directory.remove(`${directory.index}-journal`);
      (await open())[Symbol.dispose]();
    }
  }
}
