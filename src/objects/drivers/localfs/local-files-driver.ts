import { constants } from "node:fs";
import { addAbortSignal, type Readable } from "node:stream";
import { StowageError } from "../../../errors/index.ts";
import { announce, type Call, throwIfAborted } from "../../../runtime/index.ts";
import {
  type BodySource,
  type ByteRange,
  type DriverCapabilities,
  type ForeignBlob,
  type ObjectDriver,
  type PhysicalKey,
  type StoredBlob,
  WholeBody,
} from "../../driver.ts";
import { Directories, type DirectoryOptions, ensureRoot } from "./directories.ts";
import { type FileCalls, type OpenFile, realFileCalls, realFileCallsIn, shortBytesMax } from "./file-calls.ts";
import { type Attempt, attempt, driverName, errnoOf } from "./file-failure.ts";
import { readFile, readShort } from "./file-reader.ts";
import { blobPath, fanOutOf, isPartOf, newPartPath, newProbePath } from "./layout.ts";
import { listBlobs, listForeign } from "./listing.ts";
import { type PartOptions, PartWriter } from "./part-writer.ts";

export type LocalFilesOptions = DirectoryOptions & PartOptions;

/** What link(2) says where the file system has no hard links: FAT, some network and user-space file systems. */
const noHardLinks: readonly (string | undefined)[] = ["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"];

/** @throws StowageError `BACKEND_DENIED`, `BACKEND_FULL`, `CONFIG_INVALID` */
export async function openLocalFiles(options: LocalFilesOptions, call: Call, files?: FileCalls): Promise<ObjectDriver> {
  throwIfAborted(call);
  const root = await ensureRoot(files ?? realFileCalls, options);
  const used = files ?? (await realFileCallsIn(options.root));
  return new LocalFilesDriver(options, new Directories(used, options, root), used);
}

/**
 * Blobs as files. A put, step by step:
 *
 * | step | durable | a crash leaves | who goes on |
 * |---|---|---|---|
 * | the fan-out directory is made, the root fsynced | the directory's name | an empty directory | – |
 * | the part file is made and written | perhaps some of it | a part file, which no reader and no listing sees | `purge` |
 * | fsync of the part file | its bytes | the same | `purge` |
 * | link to the blob's name | perhaps the name; never a name without all bytes, for those came first | a whole blob with two names, or a part file | `purge` |
 * | unlink of the part's name | perhaps that | a whole blob, with one name or two, or a part file | `purge` |
 * | fsync of the fan-out directory | the blob and its one name | a whole blob | – |
 *
 * link(2), not rename(2): it fails when the name is taken, whichever process took it, and Node has no `renameat2` with `RENAME_NOREPLACE`. Where there
 * are no hard links, what is at the name is looked at first, and `exclusivePut` is false.
 *
 * A name that is deleted is made durable as well: a blob that a power loss brought back would have no row, and nobody would ever delete it.
 *
 * `serverDigest` is false, for nothing but a read tells what a file system has stored: a digest of what write(2) was given would repeat the store's own.
 * What the store then reads back comes from the page cache: it proves that all bytes arrived in order under the blob's name, not what the disk made of
 * them. That is for `scrub`, later, when the cache has forgotten.
 */
class LocalFilesDriver implements ObjectDriver {
  readonly name = driverName;
  readonly #options: LocalFilesOptions;
  readonly #directories: Directories;
  readonly #files: FileCalls;
  #isExclusive: boolean | undefined;

  constructor(options: LocalFilesOptions, directories: Directories, files: FileCalls) {
    this.#options = options;
    this.#directories = directories;
    this.#files = files;
  }

  async capabilities(call: Call): Promise<DriverCapabilities> {
    throwIfAborted(call);
    this.#isExclusive ??= await this.#findExclusive();
    return {
      // The largest offset that is exact here. File systems have lower limits, and say so.
      objectBytesMax: Number.MAX_SAFE_INTEGER,
      exclusivePut: this.#isExclusive ?? false,
      serverDigest: false,
      isShared: true,
      listLagMs: 0,
    };
  }

  async put(key: PhysicalKey, body: BodySource, call: Call): Promise<StoredBlob> {
    throwIfAborted(call);
    const part = await this.#createPart(key);
    try {
      // A body that has stalled must not outlive its call.
      const pieces = body.bytes ? [body.bytes] : addAbortSignal(call.signal, await body.open(call));
      const sizeBytes = await part.write(pieces, body.sizeBytes, () => throwIfAborted(call));
      await part.finish(this.#options);
      announce("localfs synced", { key });
      throwIfAborted(call);
      await this.#place(key, part.path);
      return { key, sizeBytes };
    } catch (error) {
      await part.abandon();
      // What can't be taken back is for `purge`; the failure that leads here says more than this one.
      await this.#files.unlink(part.path).catch(() => {});
      throwIfAborted(call);
      throw error;
    }
  }

  async get(key: PhysicalKey, range: ByteRange | undefined, call: Call): Promise<Readable> {
    throwIfAborted(call);
    const path = blobPath(this.#options.root, key);
    const what: Attempt = { operation: "get", key, path, isChange: false };
    // O_NONBLOCK: opening a pipe that somebody put there would wait for its writer.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const file = await this.#open(key, flags, what);
    if (file === undefined) {
      await this.#directories.checkRoot(what);
      throw new StowageError("BACKEND_KEY_MISSING", { driver: driverName, key });
    }
    try {
      const status = await attempt(what, () => file.status());
      if (!status.isFile()) {
        throw new StowageError("BACKEND_DENIED", { ...about("get"), resource: path, reason: "it is no regular file" });
      }
      const sizeBytes = Number(status.size);
      const first = range?.first ?? 0;
      const end = range === undefined ? sizeBytes : Math.min(sizeBytes, range.last + 1);
      const extent = { key, path, first, end };
      if (end - first > shortBytesMax) return readFile(file, extent, call);
      const bytes = await attempt(what, () => readShort(file, extent));
      throwIfAborted(call);
      file.close().catch(() => {}); // nothing was written, so nothing can be lost
      return new WholeBody(bytes);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async delete(key: PhysicalKey, call: Call): Promise<void> {
    throwIfAborted(call);
    const what: Attempt = { operation: "delete", key, path: blobPath(this.#options.root, key), isChange: true };
    if (!(await this.#directories.existsStill(fanOutOf(key), what))) return await this.#directories.checkRoot(what);
    await this.#unlink(what);
    // Also when it was not there: who deleted it may have died before the fsync.
    await this.#directories.sync(fanOutOf(key), what);
  }

  async purge(key: PhysicalKey, _sizeBytes: number | undefined, call: Call): Promise<void> {
    throwIfAborted(call);
    const fanOut = fanOutOf(key);
    const directory = this.#directories.path(fanOut);
    const what: Attempt = { operation: "purge", key, path: directory, isChange: false };
    if (!(await this.#directories.existsStill(fanOut, what))) return await this.#directories.checkRoot(what);
    // The parts first: a put that is at work finds nothing to link any more.
    await attempt(what, async () => {
      for await (const { name } of this.#files.names(directory)) {
        throwIfAborted(call);
        if (isPartOf(key, name)) await this.#unlink({ ...what, path: `${directory}/${name}`, isChange: true });
      }
    });
    await this.#unlink({ ...what, path: blobPath(this.#options.root, key), isChange: true });
    await this.#directories.sync(fanOut, what);
  }

  list(after: PhysicalKey | undefined, call: Call): AsyncIterable<StoredBlob> {
    return listBlobs(this.#files, this.#directories, after, call);
  }

  listForeign(call: Call): AsyncIterable<readonly ForeignBlob[]> {
    return listForeign(this.#files, this.#directories, call);
  }

  /** It holds nothing open. */
  async [Symbol.asyncDispose](): Promise<void> {}

  /** `undefined` where nothing is. */
  async #open(key: PhysicalKey, flags: number, what: Attempt): Promise<OpenFile | undefined> {
    if (!(await this.#directories.exists(fanOutOf(key), what))) return undefined;
    return await attempt(what, async () => {
      try {
        return await this.#files.open(what.path, flags);
      } catch (error) {
        if (errnoOf(error) === "ENOENT") return undefined;
        throw error;
      }
    });
  }

  async #createPart(key: PhysicalKey): Promise<PartWriter> {
    const path = newPartPath(this.#options.root, key);
    const what: Attempt = { operation: "put", key, path, isChange: true };
    const create = () => PartWriter.create(this.#files, path, key, this.#options);
    await this.#directories.prepare(fanOutOf(key), what);
    try {
      return await create();
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") return await attempt(what, () => Promise.reject(error));
      this.#directories.forget(fanOutOf(key));
      await this.#directories.prepare(fanOutOf(key), what);
      return await attempt(what, create);
    }
  }

  /** Gives the part file the blob's name, durably. */
  async #place(key: PhysicalKey, partPath: string): Promise<void> {
    const path = blobPath(this.#options.root, key);
    const what: Attempt = { operation: "put", key, path, isChange: true };
    try {
      await this.#link(key, partPath, path);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") {
        throw new StowageError("BACKEND_FAILED", {
          ...about("put"),
          key,
          reason: "it was purged while it was being written",
        });
      }
      return await attempt(what, () => Promise.reject(error));
    }
    try {
      announce("localfs linked", { key });
      await this.#unlink({ ...what, path: partPath });
      announce("localfs unlinked", { key });
      await this.#directories.sync(fanOutOf(key), what);
      announce("localfs durable", { key });
    } catch (error) {
      // Nobody has been told of it. Where this fails too, a second attempt meets it and makes its name durable before it says so.
      await this.#files.unlink(path).catch(() => {});
      throw error;
    }
  }

  async #link(key: PhysicalKey, partPath: string, path: string): Promise<void> {
    try {
      await this.#files.link(partPath, path);
    } catch (error) {
      if (errnoOf(error) === "EEXIST") {
        // A network file system repeats a request whose answer was lost: then it is our own link that is in the way.
        if (await this.#isSameFile(partPath, path)) return;
        throw await this.#exists(key, path);
      }
      if (!noHardLinks.includes(errnoOf(error))) throw error;
      const isTaken = await this.#files.linkStatus(path).then(
        () => true,
        (failure: unknown) => {
          if (errnoOf(failure) === "ENOENT") return false;
          throw failure;
        },
      );
      if (isTaken) throw await this.#exists(key, path);
      await this.#files.rename(partPath, path);
    }
  }

  /** Whoever is told that a key exists may compare the bytes and be content with them: so their name is made durable first. */
  async #exists(key: PhysicalKey, path: string): Promise<StowageError> {
    await this.#directories.sync(fanOutOf(key), { operation: "put", key, path, isChange: true });
    return new StowageError("BACKEND_KEY_EXISTS", { driver: driverName, key });
  }

  async #isSameFile(path: string, other: string): Promise<boolean> {
    const [one, two] = await Promise.all([this.#files.linkStatus(path), this.#files.linkStatus(other)]);
    return one.dev === two.dev && one.ino === two.ino;
  }

  async #unlink(what: Attempt): Promise<void> {
    await attempt(what, async () => {
      try {
        await this.#files.unlink(what.path);
      } catch (error) {
        if (errnoOf(error) !== "ENOENT") throw error;
      }
    });
  }

  /** Tries whether a name can be taken only once. `undefined` where nothing can be written. */
  async #findExclusive(): Promise<boolean | undefined> {
    const [one, two] = [newProbePath(this.#options.root), newProbePath(this.#options.root)];
    try {
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
      for (const path of [one, two]) await (await this.#files.open(path, flags, 0o600)).close();
      await this.#files.link(one, two);
      return false;
    } catch (error) {
      if (errnoOf(error) === "EEXIST") return true;
      return noHardLinks.includes(errnoOf(error)) ? false : undefined;
    } finally {
      for (const path of [one, two]) await this.#files.unlink(path).catch(() => {}); // the probe's answer stands
    }
  }
}

function about(operation: Attempt["operation"]) {
  return { driver: driverName, operation };
}
