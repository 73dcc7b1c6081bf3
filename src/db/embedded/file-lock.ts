import { closeSync, constants, lchownSync, openSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { messageOf, StowageError } from "../../errors/index.ts";
import { type Call, throwIfAborted } from "../../runtime/index.ts";
import type { Account } from "./account.ts";

const SQLITE_BUSY = 5;
const RETRY_MS = 10;

/** A lock on a file, shared or exclusive, that other processes respect and that the kernel frees when its holder dies. */
export interface FileLock extends Disposable {
  /** Whether the lock could be made exclusive at once, having been shared: nobody else has it. */
  tryUpgrade(): boolean;
}

/**
 * Node has no `flock`, but SQLite's rollback journal does its locking with the POSIX locks of the operating system: an open read
 * transaction is a shared lock, `BEGIN EXCLUSIVE` an exclusive one. Nothing is ever written to the file. (The files must not be opened by
 * anything else in this process: POSIX locks go when any descriptor of the file is closed.)
 *
 * @throws StowageError `DB_EMBEDDED_FAILED` when others keep it for longer than `timeoutMs`
 */
export async function lockFile(
  path: string,
  mode: "shared" | "exclusive",
  timeoutMs: number,
  account: Account,
  call: Call,
): Promise<FileLock> {
  createFile(path, account);
  const deadline = performance.now() + timeoutMs;
  while (true) {
    throwIfAborted(call);
    const lock = await tryLock(path, mode);
    if (lock !== undefined) return lock;
    if (performance.now() > deadline) {
      throw new StowageError(
        "DB_EMBEDDED_FAILED",
        { reason: `another command has been starting or stopping the database for ${timeoutMs / 1000} s` },
        { hint: `look for a hung stowage command that uses ${path}` },
      );
    }
    await delay(RETRY_MS);
  }
}

async function tryLock(path: string, mode: "shared" | "exclusive"): Promise<FileLock | undefined> {
  // Loaded late: only commands that use the embedded database need it.
  const { DatabaseSync } = await import("node:sqlite");
  const file = translate(() => new DatabaseSync(path, { timeout: 0 }));
  const attempt = (statement: string) =>
    translate(() => {
      try {
        file.exec(statement);
        return true;
      } catch (error) {
        if ((error as { errcode?: number }).errcode === SQLITE_BUSY) return false;
        file.close();
        throw error;
      }
    });
  if (!attempt(mode === "exclusive" ? "begin exclusive" : "begin; select count(*) from sqlite_schema")) {
    file.close();
    return undefined;
  }
  return {
    tryUpgrade() {
      file.exec("rollback");
      return attempt("begin exclusive");
    },
    [Symbol.dispose]() {
      if (file.isOpen) file.close();
    },
  };

  function translate<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw new StowageError(
        "DB_EMBEDDED_FAILED",
        { reason: `the lock file ${path} can't be used: ${messageOf(error)}` },
        { cause: error, hint: "is the data directory another user's, read-only, or on a file system without locks?" },
      );
    }
  }
}

/** Made here and not by SQLite, so that root leaves a file that the data directory's owner can use, and follows no link. */
function createFile(path: string, account: Account): void {
  const flags = constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW | constants.O_WRONLY;
  try {
    closeSync(openSync(path, flags, 0o600));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return;
    const reason = `the data directory can't be written: ${messageOf(error)}`;
    throw new StowageError("DB_EMBEDDED_FAILED", { reason }, { cause: error, hint: "choose another with --data-dir" });
  }
  if (account.isOther) lchownSync(path, account.uid, account.gid);
}
