import {
  type BigIntStats,
  chmod,
  chown,
  close,
  closeSync,
  constants,
  fchmod,
  fchown,
  fstat,
  fstatSync,
  fsync,
  link,
  lstat,
  mkdir,
  open,
  read,
  rename,
  stat,
  statfs,
  unlink,
  writev,
} from "node:fs";
import { opendir } from "node:fs/promises";

/** A file up to this length is read in one call. */
export const shortBytesMax = 1024 * 1024;

/** What of a file's status the driver looks at. */
export type FileStatus = Pick<BigIntStats, "dev" | "ino" | "size" | "mode" | "isFile" | "isDirectory">;

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
  /** Once, and when no other call is at work on it: the next file that is opened may get its number. */
  close(): Promise<void>;
}

/** A name in a directory. */
export interface NameOfFile {
  readonly name: string;
  /** It is a regular file's; not every file system says so. */
  readonly isFile: boolean;
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
  names(path: string): AsyncIterable<NameOfFile>;
}

/**
 * One call, as a promise. Not those of `node:fs/promises`: an open file is an object there that counts its users and that the collector has to look
 * after, which takes a fifth of all processor time of a short read.
 */
function called<T = void>(start: (done: (error: Error | null, value: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    start((error, value) => {
      if (error) reject(error);
      else resolve(value);
    });
  });
}

/** By their magic numbers, as statfs(2) tells them: ext4, XFS, Btrfs, tmpfs. */
const fileSystemsInMemory: ReadonlySet<number> = new Set([0xef53, 0x58465342, 0x9123683e, 0x01021994]);

class RealFile implements OpenFile {
  readonly #number: number;
  readonly #isRead: boolean;
  readonly #isInMemory: boolean;
  #closesAtOnce: boolean;

  constructor(number: number, flags: number, isInMemory: boolean) {
    this.#number = number;
    this.#isRead = (flags & constants.O_WRONLY) === 0;
    this.#isInMemory = isInMemory;
    this.#closesAtOnce = isInMemory && (flags & constants.O_DIRECTORY) !== 0;
  }

  write(bytes: readonly Buffer[], position: number): Promise<number> {
    return called((done) => writev(this.#number, bytes, position, done));
  }

  read(into: Buffer, position: number): Promise<number> {
    return called((done) => read(this.#number, into, 0, into.length, position, done));
  }

  sync(): Promise<void> {
    return called((done) => fsync(this.#number, done));
  }

  async status(): Promise<FileStatus> {
    if (!this.#isInMemory) return await called<FileStatus>((done) => fstat(this.#number, { bigint: true }, done));
    const status = fstatSync(this.#number, { bigint: true });
    this.#closesAtOnce = this.#isRead && status.size <= shortBytesMax;
    return status;
  }

  chmod(mode: number): Promise<void> {
    return called((done) => fchmod(this.#number, mode, done));
  }

  chgrp(group: number): Promise<void> {
    return called((done) => fchown(this.#number, -1, group, done));
  }

  async close(): Promise<void> {
    if (this.#closesAtOnce) closeSync(this.#number);
    else await called((done) => close(this.#number, done));
  }
}

/** Those of the operating system. */
export const realFileCalls: FileCalls = fileCalls(false);

/**
 * The same for files in a directory that is there. A call that goes to another thread and back costs ten times what fstat(2) takes, and close(2). So
 * these two are made at once where neither has to wait for anything: on file systems of this machine that keep the status of open files in memory, and
 * only for what was read: closing a file that was written may still write, closing a long one that was deleted meanwhile frees its blocks. A network or
 * a program that is a file system may not answer for hours, and meanwhile all of the process would stand still.
 */
export async function realFileCallsIn(directory: string): Promise<FileCalls> {
  const type = await called<{ type: number }>((done) => statfs(directory, done)).then(
    (found) => found.type,
    () => undefined, // one that can't be asked is none of those
  );
  return type !== undefined && fileSystemsInMemory.has(type) ? fileCalls(true) : realFileCalls;
}

function fileCalls(isInMemory: boolean): FileCalls {
  return {
    async open(path, flags, mode) {
      return new RealFile(await called<number>((done) => open(path, flags, mode, done)), flags, isInMemory);
    },
    mkdir: (path, mode) => called((done) => mkdir(path, mode, done)),
    chmod: (path, mode) => called((done) => chmod(path, mode, done)),
    chgrp: (path, group) => called((done) => chown(path, -1, group, done)),
    link: (existing, path) => called((done) => link(existing, path, done)),
    rename: (from, to) => called((done) => rename(from, to, done)),
    unlink: (path) => called((done) => unlink(path, done)),
    status: (path) => called<FileStatus>((done) => stat(path, { bigint: true }, done)),
    linkStatus: (path) => called<FileStatus>((done) => lstat(path, { bigint: true }, done)),
    async *names(path) {
      for await (const entry of await opendir(path)) yield { name: entry.name, isFile: entry.isFile() };
    },
  };
}
