import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { StowageError } from "../../errors/index.ts";
import { type Call, throwIfAborted } from "../../runtime/index.ts";
import { type Endpoint, tryConnection } from "../endpoint.ts";
import { isComingOrGoing, sqlStateOf } from "../failures.ts";
import type { Account } from "./account.ts";
import { ENVIRONMENT, toSpawnFailure } from "./cluster.ts";
import { programFailure } from "./failures.ts";
import { hasProcesses, isAlive, isPostmasterOf, readPostmasterFile, removePostmasterFiles } from "./postmaster.ts";
import type { Program } from "./program.ts";

/** A crash recovery replays at most `max_wal_size`, but perhaps from a slow disk. */
const START_TIMEOUT_MS = 600_000;
const STOP_TIMEOUT_MS = 60_000;
/** How long a server that we can't see may take from its first sign of life to answering, or from its last answer to its end. */
const UNSEEN_MS = 10_000;
/** How long processes of a killed server may take to notice that it is gone. */
const LINGER_MS = 10_000;
const POLL_MS = 5;
const LOG_BYTES_MAX = 2 ** 20;
const LOG_TAIL_BYTES = 2000;

/**
 * For a small database beside programs that need the memory themselves: few processes (no parallel queries, I/O workers or
 * replication), little WAL. `fsync` stays on. Shared memory of queries lies in files, since containers have little `/dev/shm`. The socket's path is
 * relative to the cluster, so that its depth doesn't matter.
 */
const settings: Readonly<Record<string, string>> = {
  listen_addresses: "",
  unix_socket_directories: ".",
  unix_socket_permissions: "0700",
  max_connections: "64",
  shared_buffers: "32MB",
  huge_pages: "off",
  dynamic_shared_memory_type: "mmap",
  io_method: "sync",
  max_worker_processes: "0",
  max_parallel_workers_per_gather: "0",
  max_parallel_maintenance_workers: "0",
  max_logical_replication_workers: "0",
  autovacuum_worker_slots: "1",
  autovacuum_max_workers: "1",
  wal_level: "minimal",
  max_wal_senders: "0",
  min_wal_size: "16MB",
  max_wal_size: "64MB",
  jit: "off",
  log_min_messages: "log", // fatal errors and the server's own doings; not each statement that fails
  log_checkpoints: "off",
  log_timezone: "UTC",
  timezone: "UTC",
};

/** What a connection attempt shows: `ready`, `busy` (coming, going or recovering), or `absent` (nobody listens). */
type ServerState = "ready" | "busy" | "absent";

async function probe(endpoint: Endpoint): Promise<ServerState> {
  try {
    await tryConnection(endpoint);
    return "ready";
  } catch (error) {
    if (isComingOrGoing(error)) return "busy";
    // Any answer of a server comes from a server.
    if (sqlStateOf(error) !== undefined) return "ready";
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ECONNREFUSED") return "absent";
    // The other end has too much to do, went while we spoke, or did not answer in time.
    if (code === undefined || code === "EAGAIN" || code === "ECONNRESET" || code === "EPIPE") return "busy";
    throw new StowageError("DB_EMBEDDED_FAILED", { reason: `its socket can't be used: ${code}` }, { cause: error });
  }
}

/**
 * Makes sure that the cluster's server runs and takes connections: adopts one that does, waits for one that is coming or going, or starts
 * one. Called under the gate only.
 *
 * @param onStarting told when it has been started
 * @throws StowageError `DB_EMBEDDED_FAILED`
 */
export async function ensureServer(
  cluster: string,
  endpoint: Endpoint,
  program: () => Promise<Program>,
  account: Account,
  onStarting: () => void,
  call: Call,
): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  const lingerDeadline = performance.now() + LINGER_MS;
  let started: StartedServer | undefined;
  while (true) {
    throwIfAborted(call);
    const state = await probe(endpoint);
    if (state === "ready") return;
    if (performance.now() > deadline) {
      throw new StowageError("DB_EMBEDDED_FAILED", {
        reason: `it does not take connections after ${START_TIMEOUT_MS / 1000} s`,
        log: await readLogTail(cluster, 0),
      });
    }
    if (started?.hasEnded()) {
      const log = await readLogTail(cluster, started.logOffset);
      // Processes of a killed server hold its shared memory until they notice.
      if (!/pre-existing shared memory block/.test(log) || performance.now() > lingerDeadline) {
        call.log.debug({ output: log }, "PostgreSQL ended while starting");
        throw programFailure("PostgreSQL ended while starting", log, dirname(cluster));
      }
      started = undefined;
      await delay(100);
    }
    if (state === "absent" && started === undefined && !(await isElsewhere(cluster))) {
      started = await start(cluster, await program(), account);
      onStarting();
    }
    await delay(POLL_MS);
  }
}

/**
 * Whether a server of this cluster runs though nobody listens at its socket yet or any more. Removes a `postmaster.pid` that names a
 * living stranger, as after the restart of a container, where numbers begin anew: PostgreSQL would refuse to start. One that names
 * nobody is left to PostgreSQL, which checks more (its shared memory) before it overrules it.
 */
async function isElsewhere(cluster: string): Promise<boolean> {
  const file = await readPostmasterFile(cluster);
  if (file === undefined) return false;
  if (file.pid !== undefined && (await isPostmasterOf(file.pid, cluster))) return true;
  // In another container on the same volume it can't be seen; it listens a moment after it has written the file.
  if (file.status !== "ready" && file.ageMs < UNSEEN_MS && file.ageMs >= 0 && file.pid !== undefined) return true;
  if (file.pid === undefined || isAlive(file.pid)) {
    if (await hasProcesses(cluster)) return true;
    await removePostmasterFiles(cluster);
  }
  return false;
}

interface StartedServer {
  readonly logOffset: number;
  hasEnded(): boolean;
}

async function start(cluster: string, program: Program, account: Account): Promise<StartedServer> {
  await using log = await openLog(cluster, account);
  const logOffset = (await log.stat()).size;
  const parameters = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  // Detached: a session of its own, which Ctrl-C in the terminal does not reach.
  const child: ChildProcess = spawn(join(program.directory, "bin", "postgres"), ["-D", cluster, ...parameters], {
    cwd: cluster,
    env: ENVIRONMENT,
    detached: true,
    stdio: ["ignore", log.fd, log.fd],
    ...(account.isOther ? { uid: account.uid, gid: account.gid } : {}),
  });
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => reject(toSpawnFailure(error, program)));
  });
  child.unref();
  return { logOffset, hasEnded: () => child.exitCode !== null || child.signalCode !== null };
}

/**
 * Stops the cluster's server in good order ("fast": open transactions are rolled back). Called under the gate, with nobody using it. A server that
 * runs in another container can't be signalled and is left to the next command there.
 */
export async function stopServer(cluster: string, call: Call): Promise<void> {
  const pid = (await readPostmasterFile(cluster))?.pid;
  if (pid === undefined) return;
  const deadline = performance.now() + STOP_TIMEOUT_MS;
  let isSignalled = false;
  while (await isPostmasterOf(pid, cluster)) {
    if (!isSignalled) process.kill(pid, "SIGINT");
    isSignalled = true;
    if (performance.now() > deadline) {
      call.log.warn({ pid }, "the embedded database does not stop");
      return;
    }
    await delay(POLL_MS);
  }
}

/** In the data directory; begun anew when it has grown. Follows no link: root opens it in a directory of somebody else. */
async function openLog(cluster: string, account: Account): Promise<FileHandle> {
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_WRONLY } = constants;
  const log = await open(logPath(cluster), O_APPEND | O_CREAT | O_NOFOLLOW | O_WRONLY, 0o600);
  if ((await log.stat()).size > LOG_BYTES_MAX) await log.truncate(0);
  if (account.isOther) await log.chown(account.uid, account.gid);
  return log;
}

async function readLogTail(cluster: string, from: number): Promise<string> {
  await using log = await open(logPath(cluster), constants.O_RDONLY | constants.O_NOFOLLOW);
  const { size } = await log.stat();
  const start = Math.max(from, size - LOG_TAIL_BYTES);
  const { buffer, bytesRead } = await log.read(Buffer.alloc(Math.max(1, size - start)), 0, undefined, start);
  return buffer.subarray(0, bytesRead).toString().trim();
}

function logPath(cluster: string): string {
  return `${cluster}.log`;
}
