import { type Call, throwIfAborted } from "../../../runtime/index.ts";
import type { ForeignBlob, PhysicalKey, StoredBlob } from "../../driver.ts";
import type { Directories } from "./directories.ts";
import type { FileCalls, FileStatus, NameOfFile } from "./file-calls.ts";
import { type Attempt, attempt, errnoOf, fileFailure } from "./file-failure.ts";
import { fanOutNames, isProbeName, keyOf, partKeyOf } from "./layout.ts";

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

/** So many names are looked at before who waits is told that it goes on. */
const namesAtOnce = 1000;

/** All that is below the root but blobs at their places. Symbolic links are not followed; a directory that may not be read is named, for it may hold bytes. */
export async function* listForeign(
  files: FileCalls,
  directories: Directories,
  call: Call,
): AsyncGenerator<readonly ForeignBlob[]> {
  const what: Attempt = { operation: "list", path: directories.path(""), isChange: false };
  await directories.checkRoot(what);
  const left = [""];
  for (let at = left.pop(); at !== undefined; at = left.pop()) {
    throwIfAborted(call);
    let page: ForeignBlob[] = [];
    let seen = 0;
    try {
      for await (const entry of files.names(directories.path(at))) {
        throwIfAborted(call);
        const { name } = entry;
        const { foreign, isDirectory } = await lookAt(files, directories, at, entry);
        if (foreign !== undefined) page.push(foreign);
        if (isDirectory) left.push(below(at, name));
        if (++seen % namesAtOnce !== 0) continue;
        yield page;
        page = [];
      }
    } catch (error) {
      const errno = errnoOf(error);
      const isOthers = at !== "" && !fanOutNames.includes(at);
      if (errno !== "ENOENT" && !(errno === "EACCES" && isOthers)) throw fileFailure(error, what);
      if (errno === "EACCES") page.push({ name: `${at}/ (not readable)`, sizeBytes: 0 });
    }
    yield page;
  }
  await directories.checkRoot(what);
}

function below(directory: string, name: string): string {
  return directory === "" ? name : `${directory}/${name}`;
}

async function lookAt(
  files: FileCalls,
  directories: Directories,
  directory: string,
  { name, isFile }: NameOfFile,
): Promise<{ readonly foreign?: ForeignBlob; readonly isDirectory: boolean }> {
  const path = below(directory, name);
  const isFanOut = fanOutNames.includes(directory);
  const isBlobName = isFanOut && keyOf(directory, name) !== undefined;
  // Most are blobs, of which nothing more has to be asked.
  if (isBlobName && isFile) return { isDirectory: false };
  let status: FileStatus;
  try {
    status = await files.linkStatus(directories.path(path));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return { isDirectory: false }; // it has gone meanwhile
    throw error;
  }
  const isDirectory = status.isDirectory();
  if (isDirectory) return isBlobName ? { foreign: { name: path, sizeBytes: 0 }, isDirectory } : { isDirectory };
  if (isBlobName && status.isFile()) return { isDirectory };
  const partOf = isFanOut ? partKeyOf(directory, name) : undefined;
  const sizeBytes = status.isFile() ? Number(status.size) : 0;
  // Of somebody who was killed while trying the file system.
  if (directory === "" && sizeBytes === 0 && isProbeName(name)) return { isDirectory };
  return { foreign: { name: path, sizeBytes, ...(partOf === undefined ? {} : { partOf }) }, isDirectory };
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
    for await (const { name } of files.names(directory)) {
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
