import { spawn } from "node:child_process";
import { chown, mkdir, mkdtemp, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { StowageError } from "../../errors/index.ts";
import { type Call, throwIfAborted } from "../../runtime/index.ts";
import type { Account } from "./account.ts";
import { programFailure } from "./failures.ts";
import { POSTGRES_MAJOR, type Program, patchForNamelessUser } from "./program.ts";

/** The cluster's only role, a superuser. Its connections come through a socket that only its owner and root can reach. */
export const ROLE = "stowage";

const OUTPUT_MAX = 4000;

/** Environment of PostgreSQL's programs: nothing of ours (`PGDATA`, `LD_LIBRARY_PATH`, an unreadable `HOME`) must reach them. */
export const ENVIRONMENT = { LC_ALL: "C", TZ: "UTC" };

/**
 * The cluster in the data directory; made if there is none. It is made under another name, with everything synced, and renamed when
 * whole. Called under the gate only.
 *
 * @param onMaking told when it is being made
 * @throws StowageError `DB_EMBEDDED_FAILED`
 */
export async function ensureCluster(
  dataDirectory: string,
  prepare: () => Promise<Program>,
  account: Account,
  onMaking: () => void,
  call: Call,
): Promise<string> {
  const cluster = join(dataDirectory, "postgres");
  const version = await readClusterVersion(cluster);
  if (version !== undefined) {
    if (version === POSTGRES_MAJOR) return cluster;
    throw new StowageError(
      "DB_EMBEDDED_FAILED",
      { reason: `${cluster} was written by PostgreSQL ${version}, and this stowage brings ${POSTGRES_MAJOR}` },
      { hint: "use the stowage release that wrote it, or choose another --data-dir" },
    );
  }
  const program = await prepare();
  // Left by commands that were killed.
  for (const name of await readdir(dataDirectory)) {
    if (name.startsWith("postgres-new-")) await rm(join(dataDirectory, name), { recursive: true, force: true });
  }
  const unfinished = await mkdtemp(join(dataDirectory, "postgres-new-"));
  if (account.isOther) await chown(unfinished, account.uid, account.gid);
  try {
    const made = join(unfinished, "cluster");
    const making = initialize(program, made, account, call);
    onMaking();
    let { code, output } = await making;
    if (code !== 0 && output.includes("could not look up effective user ID")) {
      const patched = join(unfinished, "program");
      await mkdir(patched);
      ({ code, output } = await initialize(await patchForNamelessUser(program, patched), made, account, call));
    }
    throwIfAborted(call);
    if (code !== 0) {
      call.log.debug({ output }, "initdb failed");
      throw programFailure("initdb failed", output, dataDirectory);
    }
    await rename(made, cluster);
    await using directory = await open(dataDirectory);
    await directory.sync();
    return cluster;
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
}

async function readClusterVersion(cluster: string): Promise<string | undefined> {
  try {
    return (await readFile(join(cluster, "PG_VERSION"), "utf8")).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

async function initialize(
  program: Program,
  directory: string,
  account: Account,
  call: Call,
): Promise<{ code: number | null; output: string }> {
  // `trust`: the socket's directory is closed to others. WAL segments of 4 MiB keep a small database small.
  const parameters = [
    "-D",
    directory,
    "-U",
    ROLE,
    "-A",
    "trust",
    "-E",
    "UTF8",
    "--locale=C",
    "--wal-segsize=4",
    "--no-instructions",
    // Else a container's small `/dev/shm` stops it.
    "-c",
    "dynamic_shared_memory_type=mmap",
  ];
  const child = spawn(join(program.directory, "bin", "initdb"), parameters, {
    cwd: "/",
    env: ENVIRONMENT,
    stdio: ["ignore", "pipe", "pipe"],
    ...(account.isOther ? { uid: account.uid, gid: account.gid } : {}),
    signal: call.signal,
  });
  let output = "";
  const take = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-OUTPUT_MAX);
  };
  child.stdout.on("data", take);
  child.stderr.on("data", take);
  return await new Promise((resolve, reject) => {
    child.on("error", (error) => {
      if (!call.signal.aborted) reject(toSpawnFailure(error, program));
    });
    child.on("close", (code) => resolve({ code, output }));
  });
}

/** Why one of PostgreSQL's programs could not even be started. */
export function toSpawnFailure(error: NodeJS.ErrnoException, program: Program): StowageError {
  const byCode: Record<string, readonly [reason: string, hint: string]> = {
    // The file is there: what is not there is the dynamic loader it names.
    ENOENT: [
      "its binaries need the GNU C library, which this system (musl, as Alpine?) has not",
      "use your own PostgreSQL with --db-connect, or a distribution with glibc",
    ],
    EACCES: [
      `${program.directory} can't be executed by the database's user`,
      "is its file system mounted noexec? Choose another place, or use your own PostgreSQL with --db-connect",
    ],
    EPERM: [
      "PostgreSQL does not run as root, and this process may not become another user",
      "run as an unprivileged user, allow the capabilities SETUID and SETGID, or use --db-connect",
    ],
  };
  const [reason, hint] = byCode[error.code ?? ""] ?? [error.message, "use your own PostgreSQL with --db-connect"];
  return new StowageError("DB_EMBEDDED_FAILED", { reason }, { cause: error, hint });
}
