import { constants } from "node:fs";
import { type FileHandle, open, realpath } from "node:fs/promises";
import { join, sep } from "node:path";
import { messageOf } from "../errors/index.ts";
import type { Call } from "../runtime/index.ts";
import { rangeStream, type SourceFiles, unreadable } from "./files.ts";

/**
 * The files of a directory that someone else may have filled: links are followed only where they stay inside, and nothing but
 * regular files is opened (a fifo would wait for ever, a device may do anything).
 * @throws StowageError `IMAGE_SOURCE_UNREADABLE` if there is no such directory
 */
export async function openDirectory(directory: string): Promise<SourceFiles> {
  let root: string;
  try {
    root = await realpath(directory);
    const handle = await open(root, constants.O_RDONLY | constants.O_DIRECTORY);
    await handle.close();
  } catch (error) {
    const reason = isErrno(error, "ENOENT")
      ? "there is no such directory"
      : isErrno(error, "ENOTDIR")
        ? "it is not a directory"
        : messageOf(error);
    throw unreadable(directory, reason, error);
  }

  async function openFile(path: string): Promise<{ handle: FileHandle; size: number } | undefined> {
    let handle: FileHandle;
    try {
      const real = await realpath(join(root, path));
      if (!real.startsWith(root.endsWith(sep) ? root : root + sep)) {
        throw unreadable(directory, `${path} is a link that leads out of the directory`);
      }
      // The path has no links any more: one found now was put there meanwhile.
      handle = await open(real, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch (error) {
      if (isErrno(error, "ENOENT") || isErrno(error, "ENOTDIR")) return undefined;
      if (isErrno(error, "ELOOP")) throw unreadable(directory, `${path} is a link that leads nowhere`, error);
      // Sockets can't be opened.
      if (isErrno(error, "ENXIO")) throw unreadable(directory, `${path} is not a regular file`, error);
      if (error instanceof Error && "syscall" in error) throw unreadable(directory, messageOf(error), error);
      throw error;
    }
    const stat = await handle.stat();
    if (stat.isFile()) return { handle, size: stat.size };
    await handle.close();
    throw unreadable(directory, `${path} is not a regular file`);
  }

  return {
    description: directory,
    async open(path: string, call: Call) {
      const file = await openFile(path);
      if (file === undefined) return undefined;
      const { handle, size } = file;
      return { size, body: rangeStream(handle, 0, size, directory, call, () => handle.close()) };
    },
    async openRange(path: string) {
      const file = await openFile(path);
      if (file === undefined) return undefined;
      const { handle, size } = file;
      return { descriptor: handle.fd, start: 0, size, [Symbol.asyncDispose]: () => handle.close() };
    },
    async size(path: string) {
      const file = await openFile(path);
      await file?.handle.close();
      return file?.size;
    },
    async [Symbol.asyncDispose]() {
      // Each stream owns its own handle.
    },
  };
}

export function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === code;
}
