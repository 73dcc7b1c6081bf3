import type { BigIntStats, Dirent } from "node:fs";
import { chmod, type FileHandle, lstat, mkdir, open, opendir, rename, statfs, unlink } from "node:fs/promises";
import { makeDirectories } from "../runtime/index.ts";

/** What of a file's status the cache looks at. */
export type FileStatus = Pick<
  BigIntStats,
  "uid" | "mode" | "nlink" | "size" | "blocks" | "mtimeMs" | "isFile" | "isDirectory"
>;

/** An open file. */
export interface CacheFile {
  /** Valid in all threads of the process until `close`. */
  readonly descriptor: number;
  /** May write less than it is given, as write(2) does; says how much. */
  write(bytes: Buffer, position: number): Promise<number>;
  /** May read less than there is room for; 0 at the end. */
  read(into: Buffer, position: number): Promise<number>;
  truncate(size: number): Promise<void>;
  status(): Promise<FileStatus>;
  close(): Promise<void>;
}

/** All that the cache asks of the file system but for its index, so that tests can put a failing disk in its place. Failures are `ErrnoException`s. */
export interface CacheFiles {
  open(path: string, flags: number, mode?: number): Promise<CacheFile>;
  mkdir(path: string, mode: number, parents?: "with parents"): Promise<void>;
  chmod(path: string, mode: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** Of a symbolic link itself. */
  linkStatus(path: string): Promise<FileStatus>;
  /** What is in a directory, in no order. */
  list(path: string): AsyncIterable<Pick<Dirent, "name">>;
  /** In what units the file system of a path hands out room. */
  blockBytes(path: string): Promise<number>;
}

class RealFile implements CacheFile {
  readonly #handle: FileHandle;
  readonly descriptor: number;

  constructor(handle: FileHandle) {
    this.#handle = handle;
    this.descriptor = handle.fd;
  }

  async write(bytes: Buffer, position: number): Promise<number> {
    return (await this.#handle.write(bytes, 0, bytes.length, position)).bytesWritten;
  }

  async read(into: Buffer, position: number): Promise<number> {
    return (await this.#handle.read(into, 0, into.length, position)).bytesRead;
  }

  truncate(size: number): Promise<void> {
    return this.#handle.truncate(size);
  }

  status(): Promise<FileStatus> {
    return this.#handle.stat({ bigint: true });
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

export const realCacheFiles: CacheFiles = {
  open: async (path, flags, mode) => new RealFile(await open(path, flags, mode)),
  async mkdir(path, mode, parents) {
    await (parents === undefined ? mkdir(path, { mode }) : makeDirectories(path, mode));
  },
  chmod,
  rename,
  unlink,
  linkStatus: (path) => lstat(path, { bigint: true }),
  async *list(path) {
    yield* await opendir(path, { bufferSize: 512 });
  },
  async blockBytes(path) {
    // What a network file system names here is the size of its requests.
    return Math.min(Math.max((await statfs(path)).bsize, 4096), 128 * 1024);
  },
};
