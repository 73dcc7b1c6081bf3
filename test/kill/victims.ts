/** Kills the embedded server of a data directory without mercy. Linux only: processes are found in `/proc`. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Sends SIGKILL to the postmaster of `dataDirectory` and to all its children; says how many there were. */
export function killServer(dataDirectory: string): number {
  const cluster = join(dataDirectory, "postgres");
  const postmaster = Number(read(join(cluster, "postmaster.pid")).split("\n")[0]);
  // A number in a file may be a stranger's by now.
  if (!(postmaster > 1) || !read(`/proc/${postmaster}/cmdline`).includes(cluster)) return 0;
  const family = [postmaster, ...childrenOf(postmaster)];
  let killed = 0;
  for (const pid of family) if (kill(pid)) killed++;
  return killed;
}

function childrenOf(parent: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => read(`/proc/${pid}/stat`).split(") ").at(-1)?.split(" ")[1] === String(parent));
}

function kill(pid: number): boolean {
  try {
    return process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
    throw error;
  }
}

/** Empty when it is not there (any more). */
function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return "";
    throw error;
  }
}
