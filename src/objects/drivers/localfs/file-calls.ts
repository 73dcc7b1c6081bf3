import type { BigIntStats } from "node:fs";
import {
  chmod,
  chown,
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  opendir,
  rename,
  stat,
  unlink,
} from "node:fs/promises";

/** What of a file's status the driver looks at. */
export type FileStatus = Pick<BigIntStats, "dev" | "ino" | "size" | "isFile" | "isDirectory">;

/** An open file or directory. */
export interface OpenFile {
  /** May write less than it is given, as write(2) does; says how much. */
  write(bytes: readonly Buffer[], position: number): Promise<number>;
  /** May read less than there is room for; 0 at the end. */
  read(into: Buffer, position: number): Promise<number>;
  /** fsync(2) */
  sync(): Promise<void>;
  status(): Promise<FileStatus>;
  chmod(mode: number): Promise<void>;
  /** Changes the group, keeps the owner. */
  chgrp(group: number): Promise<void>;
  close(): Promise<void>;
}

/** All that the driver asks of the file system, so that tests can put a failing disk in its place. Failures are `ErrnoException`s. */
export interface FileCalls {
  open(path: string, flags: number, mode?: number): Promise<OpenFile>;
  mkdir(path: string, mode: number): Promise<void>;
  chmod(path: string, mode: number): Promise<void>;
  chgrp(path: string, group: number): Promise<void>;
  link(existing: string, path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** Of the file that the path names, or of the one that a symbolic link there leads to. */
  status(path: string): Promise<FileStatus>;
  /** Of a symbolic link itself. */
  linkStatus(path: string): Promise<FileStatus>;
  /** The names in a directory, in no order. */
  names(path: string): AsyncIterable<string>;
}

class RealFile implements OpenFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async write(bytes: readonly Buffer[], position: number): Promise<number> {
    return (await this.#handle.writev(bytes, position)).bytesWritten;
  }

  async read(into: Buffer, position: number): Promise<number> {
    return (await this.#handle.read(into, 0, into.length, position)).bytesRead;
  }

  sync(): Promise<void> {
    return this.#handle.sync();
  }

  status(): Promise<FileStatus> {
    return this.#handle.stat({ bigint: true });
  }

  chmod(mode: number): Promise<void> {
    return this.#handle.chmod(mode);
  }

  chgrp(group: number): Promise<void> {
    return this.#handle.chown(-1, group);
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

export const realFileCalls: FileCalls = {
  open: async (path, flags, mode) => new RealFile(await open(path, flags, mode)),
  mkdir: (path, mode) => mkdir(path, mode),
  chmod,
  chgrp: (path, group) => chown(path, -1, group),
  link,
  rename,
  unlink,
  status: (path) => stat(path, { bigint: true }),
  linkStatus: (path) => lstat(path, { bigint: true }),
  async *names(path) {
    for await (const entry of await opendir(path)) yield entry.name;
  },
};
