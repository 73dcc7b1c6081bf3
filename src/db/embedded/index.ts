/**
 * The embedded database: a real PostgreSQL that is private to a data directory. The first command that needs it starts it, the last one
 * stops it, and none of them ever waits for or harms another's: whoever is killed, the next command finds or restores order.
 *
 * | file in the data directory | what it is |
 * |---|---|
 * | `postgres/` | the cluster, with its socket; mode 0700, of the user that the server runs as |
 * | `postgres.log` | what the server says |
 * | `gate.lock` | exclusive: held while somebody looks, starts or stops. Everything that changes is done under it |
 * | `use.lock` | shared: held by each command as long as it uses the server. Whoever gets it exclusive, under the gate, is the last |
 * | `postgres-program-*` | a copy of the binaries, only where they can't be used in place |
 *
 * Two containers on one volume (of one machine) work: the locks and the socket lie in the volume. The server lives in the container that
 * started it: when that container ends the server dies with it, commands in the other fail with `DB_UNREACHABLE`, nothing committed is
 * lost, and the next command starts a server again. A command can't stop a server of another container; it is left to the next
 * command there.
 */
import { type FileHandle, open } from "node:fs/promises";
import { join, resolve } from "node:path";
import { StowageError } from "../../errors/index.ts";
import { type Call, createCall } from "../../runtime/index.ts";
import type { Endpoint } from "../endpoint.ts";
import { type Account, prepareDataDirectory } from "./account.ts";
import { ensureCluster, ROLE } from "./cluster.ts";
import { toEmbeddedFailure } from "./failures.ts";
import { type FileLock, lockFile } from "./file-lock.ts";
import { findProgram, type Program, prepareProgram } from "./program.ts";
import { ensureServer, stopServer } from "./server.ts";

/** One use of the embedded server. Disposing of the last one stops the server. */
export interface EmbeddedUse extends AsyncDisposable {
  readonly endpoint: Endpoint;
}

/** Longer than a server may take to start (a crash recovery) or stop. */
const GATE_TIMEOUT_MS = 660_000;
/** The longest path of a socket, without the closing zero. */
const SOCKET_PATH_BYTES_MAX = process.platform === "darwin" ? 103 : 107;

export interface EmbeddedOptions {
  /** Where the binaries are; by default the npm package of this platform. */
  readonly program?: () => Program;
  /**
   * Told once when others are at work and the caller could be, too: the cluster is being made, so that nothing can be known in it, or its server starts.
   * Not told where a server runs already.
   */
  readonly whileWaiting?: (isToBeMade: boolean) => void;
}

/** @throws StowageError `DB_EMBEDDED_FAILED` */
export async function useEmbeddedServer(
  dataDirectory: string,
  options: EmbeddedOptions,
  call: Call,
): Promise<EmbeddedUse> {
  const directory = resolve(dataDirectory);
  try {
    return await enter(directory, options, call);
  } catch (error) {
    throw toEmbeddedFailure(error, directory);
  }
}

async function enter(
  directory: string,
  { program = findProgram, whileWaiting }: EmbeddedOptions,
  call: Call,
): Promise<EmbeddedUse> {
  const account = await prepareDataDirectory(directory);
  await using entering = new AsyncDisposableStack();
  const gate = entering.use(await lockGate(directory, account, call));
  const use = await lockFile(join(directory, "use.lock"), "shared", GATE_TIMEOUT_MS, account, call);
  entering.defer(() => release(directory, use, gate, call));

  let prepared: Promise<Program> | undefined;
  const prepare = () => (prepared ??= prepareProgram(program(), directory, account, call));
  let isTold = false;
  const tell = (isToBeMade: boolean) => {
    if (!isTold) whileWaiting?.(isToBeMade);
    isTold = true;
  };
  const cluster = await ensureCluster(directory, prepare, account, () => tell(true), call);
  const socket = await openSocketDirectory(cluster);
  entering.defer(() => socket.close());
  const endpoint: Endpoint = {
    // All that `pg` would else take from the environment (`PGPORT`, `PGOPTIONS`…) is said here.
    client: {
      host: socket.path,
      port: 5432,
      user: ROLE,
      database: "postgres",
      ssl: false,
      options: "-c search_path=public",
    },
    description: `embedded in ${directory}`,
  };
  await ensureServer(cluster, endpoint, prepare, account, () => tell(false), call);

  entering.move();
  gate[Symbol.dispose]();
  return {
    endpoint,
    async [Symbol.asyncDispose]() {
      await socket.close();
      // A call that was aborted still has to put things in order.
      const closing = createCall({ log: call.log });
      using exit = await lockGate(directory, account, closing);
      await release(directory, use, exit, closing);
    },
  };
}

async function lockGate(directory: string, account: Account, call: Call): Promise<FileLock> {
  return await lockFile(join(directory, "gate.lock"), "exclusive", GATE_TIMEOUT_MS, account, call);
}

/** Ends a use; the last one stops the server. The gate is asked for only to show that it is held. */
async function release(directory: string, use: FileLock, _gate: FileLock, call: Call): Promise<void> {
  using held = use;
  if (held.tryUpgrade()) await stopServer(join(directory, "postgres"), call);
}

interface SocketDirectory {
  readonly path: string;
  close(): Promise<void>;
}

/** The cluster's directory under a name short enough for a socket's path, whatever its depth. */
async function openSocketDirectory(cluster: string): Promise<SocketDirectory> {
  if (Buffer.byteLength(join(cluster, ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES_MAX) {
    return { path: cluster, close: async () => {} };
  }
  if (process.platform !== "linux") {
    throw new StowageError(
      "DB_EMBEDDED_FAILED",
      { reason: `the path of the data directory is too long for a socket: ${cluster}` },
      { hint: "choose a shorter --data-dir" },
    );
  }
  // Linux resolves this name to the open directory, wherever that is.
  const handle: FileHandle = await open(cluster);
  return { path: `/proc/self/fd/${handle.fd}`, close: () => handle.close() };
}
