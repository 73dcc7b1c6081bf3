import { constants } from "node:fs";
import { dirname, join } from "node:path";
import { bytesOnDisk } from "./accounting.ts";
import type { CacheFile, CacheFiles, FileStatus } from "./cache-files.ts";
import { CacheTrouble, errnoOf } from "./trouble.ts";

const hexPattern = /^[0-9a-f]{64}$/;
const tokenPattern = /^[0-9a-f]{32}$/;
/** Entries of the directory that are looked at in one survey; a foreign tree of more counts for less than it takes up. */
const surveyedMax = 1_000_000;

/**
 * Names in the directory. All are made by us, from digests and random numbers:
 *
 * ```
 * sha256/<64 hex>         a blob, whole, as the registry sent it (or another program that shares the layout)
 * partial/<32 hex>        a blob that is being downloaded
 * owners/<32 hex>         locked by a process as long as it lives
 * index.sqlite[-journal]  what counts: order of use, reservations, uses
 * gate                    locked shared by all who use the index, exclusively by one who makes a new one
 * ```
 */
export class CacheDirectory {
  readonly root: string;
  readonly blockBytes: number;
  readonly #files: CacheFiles;
  readonly #owner: bigint;

  private constructor(files: CacheFiles, root: string, blockBytes: number, owner: bigint) {
    this.#files = files;
    this.root = root;
    this.blockBytes = blockBytes;
    this.#owner = owner;
  }

  /**
   * Makes what is missing. The default place is one where anybody can make names: so nothing is used that another user made, and no link is followed
   * where we make names.
   */
  static async prepare(files: CacheFiles, root: string): Promise<CacheDirectory> {
    await files.mkdir(dirname(root), 0o700, "with parents");
    let owner = 0n;
    for (const path of [root, ...["sha256", "partial", "owners"].map((name) => join(root, name))]) {
      await makeDirectory(files, path);
      const status = await files.linkStatus(path);
      const refuse = (reason: string) => new CacheTrouble("refused", `${path} ${reason}`);
      if (!status.isDirectory()) throw refuse("is no directory");
      const user = process.geteuid?.();
      if (user !== undefined && status.uid !== BigInt(user)) throw refuse("belongs to another user");
      if ((status.mode & 0o077n) !== 0n && user !== undefined) await files.chmod(path, 0o700);
      owner = status.uid;
    }
    return new CacheDirectory(files, root, await files.blockBytes(root), owner);
  }

  get gate(): string {
    return join(this.root, "gate");
  }
  get index(): string {
    return join(this.root, "index.sqlite");
  }
  entry(hex: string): string {
    return join(this.root, "sha256", checked(hex, hexPattern));
  }
  partial(token: string): string {
    return join(this.root, "partial", checked(token, tokenPattern));
  }
  lockOf(owner: string): string {
    return join(this.root, "owners", checked(owner, tokenPattern));
  }

  /** Opens an entry; `undefined` if there is none that may be read: no regular file of ours with one name and this size. */
  async openEntry(hex: string, size: number): Promise<CacheFile | undefined> {
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
    const file = await this.#files.open(this.entry(hex), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    try {
      const status = await file.status();
      if (this.isOurs(status) && status.size === BigInt(size)) return file;
    } catch (error) {
      await file.close();
      throw error;
    }
    await file.close();
    return undefined;
  }

  /** A new file, of its whole size from the start: some file systems take room ahead for a file that grows, which counts. */
  async createPartial(token: string, size: number): Promise<CacheFile> {
    const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
    const file = await this.#files.open(this.partial(token), O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0o600);
    try {
      await file.truncate(size);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  rename(token: string, hex: string): Promise<void> {
    return this.#files.rename(this.partial(token), this.entry(hex));
  }

  async statusOf(path: string): Promise<FileStatus | undefined> {
    try {
      return await this.#files.linkStatus(path);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  async remove(path: string): Promise<void> {
    try {
      await this.#files.unlink(path);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return;
      // A directory in the place of a file of ours is somebody's: it stays, and counts as foreign.
      if (!(await this.statusOf(path))?.isDirectory()) throw error;
    }
  }

  isOurs(status: FileStatus): boolean {
    return status.isFile() && status.nlink === 1n && status.uid === this.#owner;
  }

  /** The names of our form in one of the folders. */
  async names(folder: "sha256" | "partial" | "owners"): Promise<string[]> {
    const pattern = folder === "sha256" ? hexPattern : tokenPattern;
    const names: string[] = [];
    for await (const { name } of this.#files.list(join(this.root, folder))) if (pattern.test(name)) names.push(name);
    return names;
  }

  /**
   * All names but those of our form, however deep, with what they take up. Links are not followed.
   * @param folders have names of our form, but are not ours
   */
  async *foreign(folders: readonly string[]): AsyncGenerator<{ readonly path: string; readonly bytes: number }> {
    const own = new Set(["gate", "index.sqlite", "index.sqlite-journal", "sha256", "partial", "owners"]);
    const patterns: Readonly<Record<string, RegExp>> = {
      sha256: hexPattern,
      partial: tokenPattern,
      owners: tokenPattern,
    };
    const waiting = ["", ...Object.keys(patterns), ...folders];
    let surveyed = 0;
    for (let folder = waiting.pop(); folder !== undefined; folder = waiting.pop()) {
      const pattern = patterns[folder];
      for await (const { name } of this.#files.list(join(this.root, folder))) {
        if (folder === "" ? own.has(name) : pattern?.test(name)) continue;
        if (++surveyed > surveyedMax) return;
        const path = join(folder, name);
        const status = await this.statusOf(join(this.root, path));
        if (status === undefined) continue;
        if (status.isDirectory()) waiting.push(path);
        yield { path, bytes: bytesOnDisk(status) };
      }
    }
  }

  /** What the index and the directories take up. */
  async ownBytes(): Promise<number> {
    let bytes = 0;
    for (const name of ["", "gate", "index.sqlite", "sha256", "partial", "owners"]) {
      const status = await this.statusOf(join(this.root, name));
      if (status !== undefined) bytes += bytesOnDisk(status);
    }
    return bytes;
  }
}

async function makeDirectory(files: CacheFiles, path: string): Promise<void> {
  try {
    await files.mkdir(path, 0o700);
  } catch (error) {
    if (errnoOf(error) !== "EEXIST") throw error;
  }
}

/** What comes from the index becomes a path. */
function checked(name: string, pattern: RegExp): string {
  if (pattern.test(name)) return name;
  throw new CacheTrouble("damaged", "its index holds a name that is none");
}
