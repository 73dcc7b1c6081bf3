import { constants } from "node:fs";
import { dirname, join } from "node:path";
import { StowageError } from "../../../errors/index.ts";
import type { FileCalls, FileStatus } from "./file-calls.ts";
import { type Attempt, attempt, driverName, errnoOf } from "./file-failure.ts";

export interface DirectoryOptions {
  readonly root: string;
  readonly directoryMode: number;
  readonly group?: number;
}

/** Makes the root, and what is missing above it. */
export async function ensureRoot(files: FileCalls, options: DirectoryOptions): Promise<FileStatus> {
  const status = await ensureDirectory(files, options, options.root);
  if (!status.isDirectory()) {
    throw new StowageError("CONFIG_INVALID", {
      key: "archive_data_dir",
      reason: `${options.root} is no directory`,
    });
  }
  return status;
}

/**
 * The root and its fan-out directories. A directory's name is durable before anything is put into it: what is fsynced below a name that a power loss
 * takes away is lost with it.
 */
export class Directories {
  readonly #files: FileCalls;
  readonly #options: DirectoryOptions;
  readonly #root: FileStatus;
  /** Seen to be directories, not symbolic links to some. */
  readonly #seen = new Set<string>();
  /** Whose names this process knows to be durable: another one may have made a directory and died before its fsync. */
  readonly #durable = new Set<string>();

  /** @param root as {@link ensureRoot} found it */
  constructor(files: FileCalls, options: DirectoryOptions, root: FileStatus) {
    this.#files = files;
    this.#options = options;
    this.#root = root;
  }

  path(fanOut: string): string {
    return join(this.#options.root, fanOut);
  }

  /** Whether a fan-out directory is there. Where none is, ask {@link checkRoot} what that means. */
  async exists(fanOut: string, what: Attempt): Promise<boolean> {
    if (this.#seen.has(fanOut)) return true;
    const path = this.path(fanOut);
    let status: FileStatus;
    try {
      status = await this.#files.linkStatus(path);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return false;
      return await attempt({ ...what, path, isChange: false }, () => Promise.reject(error));
    }
    if (!status.isDirectory()) {
      const reason = "it is no directory; symbolic links are not followed";
      throw new StowageError("BACKEND_DENIED", {
        driver: driverName,
        operation: what.operation,
        resource: path,
        reason,
      });
    }
    this.#seen.add(fanOut);
    return true;
  }

  /** The same, looked at anew: an administrator may have removed one that is empty. */
  async existsStill(fanOut: string, what: Attempt): Promise<boolean> {
    this.#seen.delete(fanOut);
    const isThere = await this.exists(fanOut, what);
    if (!isThere) this.#durable.delete(fanOut);
    return isThere;
  }

  /** Makes a fan-out directory where there is none, and its name durable. */
  async prepare(fanOut: string, what: Attempt): Promise<void> {
    if (this.#durable.has(fanOut)) return;
    if (!(await this.exists(fanOut, what))) {
      await this.checkRoot(what);
      await attempt({ ...what, path: this.path(fanOut), isChange: true }, () =>
        makeDirectory(this.#files, this.#options, this.path(fanOut)),
      );
      await this.exists(fanOut, what);
    }
    await this.#syncPath(this.#options.root, what);
    this.#durable.add(fanOut);
  }

  /** It is looked for, or made, anew. */
  forget(fanOut: string): void {
    this.#seen.delete(fanOut);
    this.#durable.delete(fanOut);
  }

  /** Makes the names in a fan-out directory durable: those that came, and that others have gone. */
  sync(fanOut: string, what: Attempt): Promise<void> {
    return this.#syncPath(this.path(fanOut), what);
  }

  /**
   * What is missing is missing only while the root is the one that was opened: without its volume, the mount point is an empty directory.
   * @throws StowageError `BACKEND_UNREACHABLE`
   */
  async checkRoot(what: Attempt): Promise<void> {
    const { root } = this.#options;
    const status = await attempt({ ...what, path: root, isChange: false }, () =>
      this.#files.status(root).catch((error: unknown) => {
        if (errnoOf(error) !== "ENOENT") throw error;
        return undefined;
      }),
    );
    if (status?.dev === this.#root.dev && status.ino === this.#root.ino) return;
    const reason = `${root} is no longer the directory that was opened`;
    throw new StowageError(
      "BACKEND_UNREACHABLE",
      { driver: driverName, operation: what.operation, reason },
      {
        hint: `mount the volume at ${root} again, then start anew`,
      },
    );
  }

  async #syncPath(path: string, what: Attempt): Promise<void> {
    await attempt({ ...what, path, isChange: false }, () => syncDirectory(this.#files, path));
  }
}

async function ensureDirectory(files: FileCalls, options: DirectoryOptions, path: string): Promise<FileStatus> {
  const what: Attempt = { operation: "open", path, isChange: false };
  try {
    return await files.status(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") return await attempt(what, () => Promise.reject(error));
  }
  const parent = dirname(path);
  await ensureDirectory(files, options, parent);
  return await attempt({ ...what, isChange: true }, async () => {
    await makeDirectory(files, options, path);
    await syncDirectory(files, parent);
    return await files.status(path);
  });
}

/** Another process may have been faster. */
async function makeDirectory(
  files: FileCalls,
  { directoryMode, group }: DirectoryOptions,
  path: string,
): Promise<void> {
  try {
    await files.mkdir(path, directoryMode & 0o777);
  } catch (error) {
    if (errnoOf(error) === "EEXIST") return;
    throw error;
  }
  // The mode that mkdir(2) was given is cut by the umask; a change of the group clears bits of it.
  if (group !== undefined) await files.chgrp(path, group);
  await files.chmod(path, directoryMode);
}

async function syncDirectory(files: FileCalls, path: string): Promise<void> {
  const directory = await files.open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } catch (error) {
    // Some network file systems know no fsync of a directory: their servers make names durable by themselves, or never.
    if (errnoOf(error) !== "EINVAL") throw error;
  } finally {
    await directory.close();
  }
}
