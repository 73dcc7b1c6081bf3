import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../runtime/index.ts";

/** What `postmaster.pid` says. */
export interface PostmasterFile {
  /** `undefined` when the file is empty or torn, as a power failure leaves it. */
  readonly pid: number | undefined;
  readonly status: string;
  readonly ageMs: number;
}

/** @returns `undefined` when there is no such file: the server is not running, and was stopped in good order */
export async function readPostmasterFile(cluster: string): Promise<PostmasterFile | undefined> {
  const path = join(cluster, "postmaster.pid");
  try {
    const lines = (await readFile(path, "utf8")).split("\n");
    const pid = Number(lines[0]);
    return {
      pid: Number.isSafeInteger(pid) && pid > 0 ? pid : undefined,
      status: (lines[7] ?? "").trim(), // LOCK_FILE_LINE_PM_STATUS is the eighth
      ageMs: systemClock.now().getTime() - (await stat(path)).mtimeMs,
    };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Whether `pid` is a process of PostgreSQL that works in this cluster: its name is `postgres`, and its working directory is the cluster. A
 * process of another user can't be looked into; it is none of ours.
 */
export async function isPostmasterOf(pid: number, cluster: string): Promise<boolean> {
  try {
    if (process.platform !== "linux") return await isListedPostmaster(pid, cluster);
    const [name, own, theirs] = await Promise.all([
      readFile(`/proc/${pid}/comm`, "utf8"),
      stat(cluster),
      stat(`/proc/${pid}/cwd`),
    ]);
    return name.trim() === "postgres" && own.dev === theirs.dev && own.ino === theirs.ino;
  } catch {
    return false;
  }
}

/** Whether any process of the system is a PostgreSQL process of this cluster: servers that outlive their killed postmaster for a moment. */
export async function hasProcesses(cluster: string): Promise<boolean> {
  if (process.platform !== "linux") return false;
  for (const name of await readdir("/proc")) {
    if (/^\d+$/.test(name) && (await isPostmasterOf(Number(name), cluster))) return true;
  }
  return false;
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Removes what a server that is gone has left, where PostgreSQL would take a stranger with its number for that server. */
export async function removePostmasterFiles(cluster: string): Promise<void> {
  for (const name of ["postmaster.pid", ".s.PGSQL.5432.lock", ".s.PGSQL.5432"]) {
    await rm(join(cluster, name), { force: true });
  }
}

async function isListedPostmaster(pid: number, cluster: string): Promise<boolean> {
  const { execFile } = await import("node:child_process");
  return await new Promise((resolve) => {
    execFile("ps", ["-o", "args=", "-p", String(pid)], (error, output) => {
      resolve(error === null && output.includes(`-D ${cluster}`));
    });
  });
}
