import { lstatSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";
import { sqliteCodeOf } from "./trouble.ts";

const SQLITE_BUSY = 5;
const SQLITE_CANTOPEN = 14;
const sharing = "begin; select count(*) from sqlite_schema";

export type Sqlite = typeof import("node:sqlite");

/** Loaded late: who has no cache does not need it. */
export function loadSqlite(): Promise<Sqlite> {
  return import("node:sqlite");
}

/**
 * Takes a lock on a file, as long as nobody has one that forbids it. The kernel frees it when its holder dies, however that happens, and knows it in
 * every container that shares the volume, where process ids mean nothing.
 *
 * SQLite's rollback journal does its locking with the locks of the operating system: an open read transaction is a shared lock, `BEGIN EXCLUSIVE` an
 * exclusive one. Nothing is ever written to the file. It must be opened by nothing else in this process: POSIX locks go when any descriptor of the file
 * is closed. (SQLite's own connections know of each other.)
 */
export function tryLock({ DatabaseSync }: Sqlite, path: string, mode: "shared" | "exclusive"): Disposable | undefined {
  refuseLink(path);
  const file = new DatabaseSync(path, { timeout: 0 });
  // An exclusive transaction begins to make a database of an empty file, and would note that in a journal.
  return attempt(file, mode === "exclusive" ? "pragma journal_mode = memory; begin exclusive" : sharing);
}

/** Whether somebody holds the lock exclusively. A file that is not there is nobody's. */
export function isLocked({ DatabaseSync }: Sqlite, path: string): boolean {
  let file: DatabaseSync;
  try {
    // Makes no file, and two that ask at once don't see each other.
    file = new DatabaseSync(path, { timeout: 0, readOnly: true });
  } catch (error) {
    if (primaryCodeOf(error) === SQLITE_CANTOPEN) return false;
    throw error;
  }
  const lock = attempt(file, sharing);
  lock?.[Symbol.dispose]();
  return lock === undefined;
}

function attempt(file: DatabaseSync, statement: string): Disposable | undefined {
  try {
    file.exec(statement);
  } catch (error) {
    file.close();
    if (primaryCodeOf(error) === SQLITE_BUSY) return undefined;
    throw error;
  }
  return {
    [Symbol.dispose]() {
      if (file.isOpen) file.close();
    },
  };
}

/** SQLite follows symbolic links. */
export function refuseLink(path: string): void {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined || status.isFile()) return;
  throw Object.assign(new Error(`${path} is no regular file`), { code: "ELOOP" });
}

function primaryCodeOf(error: unknown): number | undefined {
  const code = sqliteCodeOf(error);
  return code === undefined ? undefined : code & 0xff;
}
