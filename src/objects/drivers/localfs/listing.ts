import { type Call, throwIfAborted } from "../../../runtime/index.ts";
import type { PhysicalKey, StoredBlob } from "../../driver.ts";
import type { Directories } from "./directories.ts";
import type { FileCalls } from "./file-calls.ts";
import { type Attempt, attempt, errnoOf } from "./file-failure.ts";
import { fanOutNames, keyOf } from "./layout.ts";

/** So many keys are held at once. A directory with more of them is read again for the next ones. */
const keysMax = 16_384;
/** So many files are asked for their size at once: more would only wait in the queue of Node's file threads. */
const statusesAtOnce = 16;

/** All blobs after a key, in the order of keys. Whatever is not a regular file with a name of ours is passed over. */
export async function* listBlobs(
  files: FileCalls,
  directories: Directories,
  after: PhysicalKey | undefined,
  call: Call,
): AsyncGenerator<StoredBlob> {
  throwIfAborted(call);
  const what: Attempt = { operation: "list", path: directories.path(""), isChange: false };
  await directories.checkRoot(what);
  let last: string = after ?? "";
  for (const fanOut of fanOutNames) {
    if (fanOut < last.slice(0, 2) || !(await directories.existsStill(fanOut, what))) continue;
    for (;;) {
      const keys = await nextKeys(files, directories.path(fanOut), fanOut, last, call);
      for (let at = 0; at < keys.length; at += statusesAtOnce) {
        throwIfAborted(call);
        const blobs = await Promise.all(
          keys
            .slice(at, at + statusesAtOnce)
            .map((key) => blobOf(files, key, `${directories.path(fanOut)}/${key}.blob`)),
        );
        for (const blob of blobs) if (blob !== undefined) yield blob;
      }
      last = keys.at(-1) ?? last;
      if (keys.length < keysMax) break;
    }
  }
  // A volume that went meanwhile would have made the listing a short one.
  await directories.checkRoot(what);
}

/** The first keys after `last` in a directory, sorted. */
async function nextKeys(
  files: FileCalls,
  directory: string,
  fanOut: string,
  last: string,
  call: Call,
): Promise<PhysicalKey[]> {
  let keys: PhysicalKey[] = [];
  const keepFirst = () => {
    keys.sort();
    keys = keys.slice(0, keysMax);
  };
  await attempt({ operation: "list", path: directory, isChange: false }, async () => {
    for await (const name of files.names(directory)) {
      throwIfAborted(call);
      const key = keyOf(fanOut, name);
      if (key === undefined || key <= last) continue;
      keys.push(key);
      if (keys.length === 2 * keysMax) keepFirst();
    }
  });
  keepFirst();
  return keys;
}

async function blobOf(files: FileCalls, key: PhysicalKey, path: string): Promise<StoredBlob | undefined> {
  return await attempt({ operation: "list", key, path, isChange: false }, async () => {
    try {
      const status = await files.linkStatus(path);
      return status.isFile() ? { key, sizeBytes: Number(status.size) } : undefined;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined; // deleted meanwhile
      throw error;
    }
  });
}
