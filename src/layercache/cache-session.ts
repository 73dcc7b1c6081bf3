import { randomBytes } from "node:crypto";
import { closeSync, constants, openSync } from "node:fs";
import { announce, type Call, type Clock, createCall, type Logger } from "../runtime/index.ts";
import { bytesOnDisk, costOf, rowsPerStep } from "./accounting.ts";
import { CacheDirectory } from "./cache-directory.ts";
import type { CacheFile, CacheFiles } from "./cache-files.ts";
import { CacheIndex, type Condemned } from "./cache-index.ts";
import type { IndexFile } from "./index-file.ts";
import { isLocked, loadSqlite, type Sqlite, tryLock } from "./lock-file.ts";
import { openIndex } from "./open-index.ts";
import { CacheTrouble, errnoOf, troubleOf } from "./trouble.ts";

export interface SessionOptions {
  readonly directory: string;
  readonly bytesMax: number;
  readonly files: CacheFiles;
  readonly clock: Clock;
}

/** An entry that is open. It stays on the disk until it is disposed of. */
export interface OpenEntry extends AsyncDisposable {
  readonly file: CacheFile;
}

/** Room for a layer that is about to come. */
export interface Room {
  readonly digest: string;
  readonly size: number;
  readonly token: string;
}

export type Claim =
  | { readonly kind: "room"; readonly room: Room }
  | { readonly kind: "ready" }
  | { readonly kind: "filling"; readonly token: string }
  | { readonly kind: "refused" };

/** Failures to open a file that say nothing about the file. */
const shortages = new Set(["EMFILE", "ENFILE", "ENOMEM"]);

/** How often room is looked for; each time something of another's goes, or is about to. */
const claimAttemptsMax = 10_000;
const waitsMax = 200;
const waitMs = 10;
/** What others put into the directory is seen so late at most. */
const surveyEveryMs = 600_000;

/**
 * One process's part in the cache: as long as it is open, its reservations and uses count. It ends when its last use does, after the first trouble with
 * the index at the latest; what it could not put in order is then the dead's, and whoever comes next does it.
 */
export class CacheSession {
  readonly directory: CacheDirectory;
  readonly index: CacheIndex;
  readonly #file: IndexFile;
  readonly #sqlite: Sqlite;
  readonly #clock: Clock;
  readonly #owner: string;
  readonly #locks: DisposableStack;
  #active = 0;
  #surveyedAt = 0;
  #isRetired = false;
  #isClosed = false;

  private constructor(
    directory: CacheDirectory,
    file: IndexFile,
    sqlite: Sqlite,
    clock: Clock,
    owner: string,
    locks: DisposableStack,
  ) {
    this.directory = directory;
    this.index = new CacheIndex(file, owner);
    this.#file = file;
    this.#sqlite = sqlite;
    this.#clock = clock;
    this.#owner = owner;
    this.#locks = locks;
  }

  /** @throws CacheTrouble */
  static async open({ directory: root, bytesMax, files, clock }: SessionOptions, call: Call): Promise<CacheSession> {
    try {
      const sqlite = await loadSqlite();
      const directory = await CacheDirectory.prepare(files, root);
      using locks = new DisposableStack();
      const file = await openIndex(sqlite, directory, bytesMax, clock, locks, call);
      const owner = randomBytes(16).toString("hex");
      const session = new CacheSession(directory, file, sqlite, clock, owner, locks.move());
      try {
        await session.#join(bytesMax, call);
        await session.reclaim(call);
        await session.survey(call);
        await session.trim(undefined, call);
        await file.shrink(call);
        return session;
      } catch (error) {
        await session.close(call);
        throw error;
      }
    } catch (error) {
      throw troubleOf(error);
    }
  }

  /** Whether it is of no more use. */
  get isRetired(): boolean {
    return this.#isRetired;
  }

  /** Takes no more part in the cache than until what is under way has ended. */
  retire(): void {
    this.#isRetired = true;
    if (this.#active === 0) this.#closeNow();
  }

  /** Ends it in order. What is still open stays good. */
  async close(call: Call): Promise<void> {
    if (this.#active === 0 && !this.#isClosed) {
      // Whatever fails here, others find a dead owner.
      await this.index.leave(call).catch(() => undefined);
      await this.directory.remove(this.directory.lockOf(this.#owner)).catch(() => undefined);
    }
    this.retire();
  }

  /** Keeps the session open, and the process known to be alive, until it is disposed of. */
  hold(): Disposable {
    if (this.#isClosed) throw new CacheTrouble("closed", "it has been closed");
    this.#active++;
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        if (--this.#active === 0 && this.#isRetired) this.#closeNow();
      },
    };
  }

  /** Opens an entry. One that is `unfit` to be served is no entry any more. */
  async openEntry(
    digest: string,
    size: number,
    isRequest: boolean,
    call: Call,
  ): Promise<OpenEntry | "absent" | "unfit"> {
    using hold = new DisposableStack();
    hold.use(this.hold());
    if (!(await this.#guard(this.index.use(digest, size, this.#now(), isRequest, call)))) return "absent";
    // Vanished, unreadable, cut off or something else under its name: whatever it is, it does not serve.
    let shortage: unknown;
    const file = await this.directory.openEntry(digest, size).catch((error: unknown) => {
      if (shortages.has(errnoOf(error) ?? "")) shortage = error;
      return undefined;
    });
    const held = hold.move();
    if (file !== undefined) {
      let isOpen = true;
      const close = async () => {
        if (!isOpen) return;
        isOpen = false;
        using _ = held;
        await file.close();
        await this.#release(digest, call.log);
      };
      return { file, [Symbol.asyncDispose]: close };
    }
    using _ = held;
    await this.#release(digest, call.log);
    if (shortage !== undefined) throw troubleOf(shortage);
    await this.forget(digest, call);
    return "unfit";
  }

  /** Drops an entry, at once or when its last reader has gone. */
  async forget(digest: string, call: Call): Promise<void> {
    const isMine = await this.#guard(this.index.condemn(digest, call));
    if (isMine) await this.remove([{ digest, token: undefined }], call);
  }

  /** Removes files, then their rows. Not while the call lasts only: others wait for the room. */
  async remove(condemned: readonly Omit<Condemned, "size">[], call: Call): Promise<void> {
    const cleaning = createCall({ log: call.log });
    for (const { digest, token } of condemned) {
      await this.#guard(this.#removeFiles(digest, token));
      announce("layercache unlinked", { digest });
      await this.#guard(this.index.drop(digest, cleaning));
      announce("layercache dropped", { digest });
    }
  }

  /** Makes room for a layer and reserves it, or says why not. */
  async claim(digest: string, size: number, call: Call): Promise<Claim> {
    if (this.#now() - this.#surveyedAt > surveyEveryMs) await this.survey(call);
    const token = randomBytes(16).toString("hex");
    const cost = costOf(size, this.directory.blockBytes);
    let hasReclaimed = false;
    for (let attempt = 0, waits = 0; attempt < claimAttemptsMax && waits < waitsMax; attempt++) {
      const answer = await this.#guard(this.index.reserve({ digest, size, cost, token }, this.#now(), call));
      switch (answer.kind) {
        case "reserved":
          announce("layercache reserved", { digest });
          return { kind: "room", room: { digest, size, token } };
        case "ready":
        case "filling":
          return answer;
        case "evict":
          announce("layercache condemned", {});
          await this.remove(answer.condemned, call);
          break;
        case "wait":
          waits++;
          await this.#clock.sleep(waitMs, call);
          break;
        case "refused":
          if (hasReclaimed) return { kind: "refused" };
      }
      if (answer.kind === "refused" || waits === waitsMax >> 1) {
        await this.reclaim(call);
        hasReclaimed = true;
      }
    }
    return { kind: "refused" };
  }

  /** A download is whole: gives it its name. Says whether it is an entry now. */
  async keep({ digest, token }: Room, log: Logger): Promise<boolean> {
    await this.directory.rename(token, digest);
    announce("layercache renamed", { digest });
    const isKept = await this.#guard(this.index.complete(digest, token, this.#now(), createCall({ log })));
    announce("layercache ready", { digest });
    return isKept;
  }

  /** A download came to nothing. */
  async giveUp({ digest, token }: Room, log: Logger): Promise<void> {
    await this.remove([{ digest, token }], createCall({ log }));
  }

  /** Puts in order what the dead have left. */
  async reclaim(call: Call): Promise<void> {
    const isDead = (owner: string) => !isLocked(this.#sqlite, this.directory.lockOf(owner));
    for (;;) {
      const { condemned, buried } = await this.#guard(this.index.reclaim(isDead, call));
      await this.remove(condemned, call);
      for (const owner of buried) await this.#guard(this.directory.remove(this.directory.lockOf(owner)));
      if (condemned.length === 0 && buried.length === 0) return;
    }
  }

  /** Looks at what lies in the directory: adopts blobs that have no row, removes garbage of ours, counts what is foreign. Returns the foreign paths. */
  async survey(call: Call, pathsMax = 0): Promise<string[]> {
    const { directory, index } = this;
    this.#surveyedAt = this.#now();
    // The names first, then the index: a file of ours has a row before it is there, and until it is gone.
    const kinds = [
      ["partial", "token", (name: string) => directory.partial(name)],
      ["owners", "owner", (name: string) => directory.lockOf(name)],
    ] as const;
    for (const [folder, kind, pathOf] of kinds) {
      for (const names of inSteps(await this.#guard(directory.names(folder)), 500)) {
        const known = await this.#guard(index.known(kind, names, call));
        for (const name of names) if (!known.has(name)) await this.#guard(directory.remove(pathOf(name)));
      }
    }
    let foreignBytes = 0;
    const foreignPaths: string[] = [];
    const folders: string[] = [];
    const count = (path: string, bytes: number, isFolder = false) => {
      foreignBytes += bytes;
      if (isFolder) folders.push(path);
      if (foreignPaths.length < pathsMax) foreignPaths.push(path);
    };
    for (const names of inSteps(await this.#guard(directory.names("sha256")), 500)) {
      const known = await this.#guard(index.known("digest", names, call));
      for (const step of inSteps(
        names.filter((name) => !known.has(name)),
        rowsPerStep,
      )) {
        await this.#adopt(step, count, call);
      }
    }
    await this.#guard(
      (async () => {
        for await (const { path, bytes } of directory.foreign(folders)) count(path, bytes);
        await index.note(foreignBytes, await directory.ownBytes(), call);
      })(),
    );
    return foreignPaths;
  }

  /** Drops entries until the limit holds, or `bytesMax` if that is less. */
  async trim(bytesMax: number | undefined, call: Call): Promise<{ readonly entries: number; readonly bytes: number }> {
    let entries = 0;
    let bytes = 0;
    for (;;) {
      const condemned = await this.#guard(this.index.shed(bytesMax, call));
      if (condemned.length === 0) return { entries, bytes };
      await this.remove(condemned, call);
      entries += condemned.length;
      bytes += condemned.reduce((sum, { size }) => sum + size, 0);
    }
  }

  /** Blobs that another program left under our names, or that an older index knew. */
  async #adopt(
    digests: readonly string[],
    count: (path: string, bytes: number, isFolder: boolean) => void,
    call: Call,
  ): Promise<void> {
    const found: Parameters<CacheIndex["adopt"]>[0][number][] = [];
    for (const digest of digests) {
      const status = await this.#guard(this.directory.statusOf(this.directory.entry(digest)));
      if (status === undefined) continue;
      if (!this.directory.isOurs(status) || status.size === 0n) {
        count(`sha256/${digest}`, bytesOnDisk(status), status.isDirectory());
        continue;
      }
      const size = Number(status.size);
      const cost = Math.max(costOf(size, this.directory.blockBytes), bytesOnDisk(status));
      found.push({ digest, size, cost, lastUsed: Math.min(Number(status.mtimeMs), this.#now()) });
    }
    await this.#guard(this.index.adopt(found, call));
    // There may be more than the index has room for.
    await this.trim(undefined, call);
  }

  async #join(bytesMax: number, call: Call): Promise<void> {
    const path = this.directory.lockOf(this.#owner);
    const lock = () => {
      const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
      closeSync(openSync(path, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0o600));
      const held = tryLock(this.#sqlite, path, "exclusive");
      if (held === undefined) throw new CacheTrouble("other", `${path} is locked`);
      return held;
    };
    this.#locks.use(await this.index.join(bytesMax, lock, call));
    announce("layercache joined", {});
  }

  async #removeFiles(digest: string, token: string | undefined): Promise<void> {
    if (token !== undefined) await this.directory.remove(this.directory.partial(token));
    await this.directory.remove(this.directory.entry(digest));
  }

  async #release(digest: string, log: Logger): Promise<void> {
    // Whoever lets go has no use for a failure; the session retires, and the use ends with it.
    const cleaning = createCall({ log });
    try {
      const isMine = await this.#guard(this.index.release(digest, cleaning));
      if (isMine) await this.remove([{ digest, token: undefined }], cleaning);
    } catch (error) {
      troubleOf(error);
    }
  }

  /** After a trouble with the index, or with removing what counts, nothing it says can be relied on. */
  async #guard<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      const trouble = troubleOf(error);
      this.retire();
      throw trouble;
    }
  }

  #now(): number {
    return this.#clock.now().getTime();
  }

  #closeNow(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#file[Symbol.dispose]();
    // The lock goes last: until then nobody takes this process for dead.
    this.#locks.dispose();
  }
}

function* inSteps<T>(items: readonly T[], length: number): Generator<readonly T[]> {
  for (let at = 0; at < items.length; at += length) yield items.slice(at, at + length);
}
