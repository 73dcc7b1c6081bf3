import { createHash } from "node:crypto";
import { type Kysely, sql } from "kysely";
import type { Client, QueryConfig, QueryResult } from "pg";
import { StowageError } from "../errors/index.ts";
import { type Call, createCall, throwIfAborted } from "../runtime/index.ts";
import type { HeldLock } from "./database.ts";
import { connectClient, type Endpoint } from "./endpoint.ts";
import { sqlStateOf, toStatementFailure } from "./failures.ts";
import type { Tables } from "./tables.ts";

interface LockRequest {
  readonly name: string;
  readonly mode: "exclusive" | "shared";
  readonly timeoutMs: number;
  /** For others who find it taken. */
  readonly holder: string | undefined;
}

const HEARTBEAT_MS = 5_000;
const ANSWER_TIMEOUT_MS = 10_000;
const LOCK_NOT_AVAILABLE = "55P03";
const INT4_MAX = 2 ** 31 - 1;

/**
 * Takes the session advisory lock `name` on a connection of its own, so that the pool can't hand the connection to others, and the
 * lock lives exactly as long as the connection.
 * @returns `undefined` when others held it for all of `timeoutMs`
 */
export async function acquireLock(endpoint: Endpoint, request: LockRequest, call: Call): Promise<HeldLock | undefined> {
  const { name, holder } = request;
  let onLoss = (_cause: Error): void => {};
  const client = await connectClient(endpoint, (error) => onLoss(error), call, holder && asApplicationName(holder));
  client.on("end", () => onLoss(new Error("the connection ended")));
  if (!(await waitForLock(client, endpoint, request, call))) {
    await client.end();
    return undefined;
  }

  const lost = new AbortController();
  const query = oneByOne(client);
  const stopBeating = beat(query, (error) => onLoss(error));
  onLoss = (cause) => {
    onLoss = () => {};
    stopBeating();
    lost.abort(lockLost(name, cause));
    void client.end().catch(() => {});
  };
  return {
    signal: lost.signal,
    async [Symbol.asyncDispose]() {
      if (lost.signal.aborted) return;
      onLoss = () => {};
      stopBeating();
      // The end of the connection frees the lock too, but a moment after we have gone.
      await query("select pg_advisory_unlock_all()").catch(() => {});
      await client.end().catch(() => {});
    },
  };
}

type Query = (text: string, values?: readonly string[]) => Promise<QueryResult>;

/**
 * One statement after the other: a client takes no second one before the answer. After one that failed there are no others, for who holds locks on the
 * connection does not know any more which.
 */
function oneByOne(client: Client): Query {
  let last: Promise<unknown> = Promise.resolve();
  return (text, values = []) => {
    const answer = last.then(() => client.query<QueryResult>(bounded(text, values)));
    last = answer;
    return answer;
  };
}

/** A connection that is there for locks only, and those that it holds. */
interface LockConnection {
  readonly query: Query;
  /** By name, what to do when the connection is lost. */
  readonly held: Map<string, (cause: Error) => void>;
  readonly isLost: boolean;
  /** Tells those who hold locks, and ends the connection. */
  lose(cause: Error): Promise<void>;
}

/**
 * Holds exclusive locks that nobody else has just now, all on one connection: a connection for each would cost more than what short work it guards.
 * Whoever has to wait for a lock does so on a connection of its own.
 */
export class LockSession implements AsyncDisposable {
  readonly #endpoint: Endpoint;
  readonly #holder: string | undefined;
  readonly #call: Call;
  #connection: Promise<LockConnection> | undefined;
  /** A connection takes a lock that it holds once more, and these would not exclude each other. */
  readonly #names = new Set<string>();

  /** @param call under which the connection is made: it outlives those who take locks */
  constructor(endpoint: Endpoint, holder: string | undefined, call: Call) {
    this.#endpoint = endpoint;
    this.#holder = holder;
    this.#call = call;
  }

  /** @returns `undefined` when it can't be had in this way, for whatever reason */
  async tryLock(name: string): Promise<HeldLock | undefined> {
    if (this.#names.has(name)) return undefined;
    this.#names.add(name);
    let connection: LockConnection | undefined;
    try {
      connection = await this.#connect();
      const { rows } = await connection.query("select pg_try_advisory_lock($1) as got", [lockKey(name)]);
      if (rows[0]?.got === true && !connection.isLost) return this.#hold(connection, name);
    } catch (error) {
      this.#call.log.debug({ err: error }, "lock connection failed");
      // Nobody knows whether it has the lock.
      await connection?.lose(error as Error);
    }
    this.#names.delete(name);
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const connection = await this.#connection?.catch(() => undefined);
    await connection?.lose(new Error("the database was closed"));
  }

  #hold({ query, held, lose }: LockConnection, name: string): HeldLock {
    const lost = new AbortController();
    held.set(name, (cause) => {
      this.#names.delete(name);
      lost.abort(lockLost(name, cause));
    });
    return {
      signal: lost.signal,
      [Symbol.asyncDispose]: async () => {
        if (!held.delete(name)) return;
        try {
          await query("select pg_advisory_unlock($1)", [lockKey(name)]);
        } catch (error) {
          // With its connection the lock goes as well, as do all others of it.
          await lose(error as Error);
        }
        this.#names.delete(name);
      },
    };
  }

  #connect(): Promise<LockConnection> {
    if (this.#connection !== undefined) return this.#connection;
    const opening = this.#open(() => {
      if (this.#connection === opening) this.#connection = undefined;
    });
    this.#connection = opening;
    return opening;
  }

  async #open(onEnd: () => void): Promise<LockConnection> {
    const held = new Map<string, (cause: Error) => void>();
    let client: Client | undefined;
    let stopBeating = () => {};
    let ending: Promise<void> | undefined;
    const lose = (cause: Error): Promise<void> => {
      if (ending !== undefined) return ending;
      stopBeating();
      onEnd();
      for (const tell of held.values()) tell(cause);
      held.clear();
      ending = client?.end().catch(() => {}) ?? Promise.resolve();
      return ending;
    };
    const onLoss = (cause: Error) => {
      // What goes wrong before is for whoever connects.
      if (client !== undefined) void lose(cause);
    };
    try {
      client = await connectClient(this.#endpoint, onLoss, this.#call, this.#holder && asApplicationName(this.#holder));
    } catch (error) {
      onEnd();
      throw error;
    }
    const connected = client;
    connected.on("end", () => onLoss(new Error("the connection ended")));
    const query = oneByOne(connected);
    stopBeating = beat(query, onLoss);
    return {
      query,
      held,
      get isLost() {
        return ending !== undefined;
      },
      lose,
    };
  }
}

/** Asks the connection every few seconds whether it is still there, until the returned function is called. */
function beat(query: Query, onFailure: (error: Error) => void): () => void {
  const heartbeat = setInterval(() => {
    query("select 1").catch(onFailure);
  }, HEARTBEAT_MS);
  heartbeat.unref();
  return () => clearInterval(heartbeat);
}

/** A statement that a server answers at once, if at all. */
function bounded(text: string, values: readonly string[] = []): QueryConfig {
  const query = { text, values: [...values], query_timeout: ANSWER_TIMEOUT_MS };
  return query;
}

function lockLost(name: string, cause: Error): StowageError {
  const hint = "run the command again: nothing was left half done";
  return new StowageError("DB_LOCK_LOST", { lock: name }, { cause, hint });
}

async function waitForLock(
  client: Client,
  endpoint: Endpoint,
  { name, mode, timeoutMs }: LockRequest,
  call: Call,
): Promise<boolean> {
  const suffix = mode === "shared" ? "_shared" : "";
  // The wait is in the server. When the call is aborted the query is cancelled there, by a second connection, and fails here.
  const cancel = () => void cancelQuery(client, endpoint);
  call.signal.addEventListener("abort", cancel, { once: true });
  try {
    throwIfAborted(call);
    if (timeoutMs <= 0) {
      const text = `select pg_try_advisory_lock${suffix}($1) as got`;
      const { rows } = await client.query<{ got: boolean }>(text, [lockKey(name)]);
      return rows[0]?.got === true;
    }
    await client.query("select set_config('lock_timeout', $1, false)", [
      `${Math.min(Math.max(1, Math.ceil(timeoutMs)), INT4_MAX)}ms`,
    ]);
    await client.query(`select pg_advisory_lock${suffix}($1)`, [lockKey(name)]);
    return true;
  } catch (error) {
    if (sqlStateOf(error) === LOCK_NOT_AVAILABLE) return false;
    await client.end().catch(() => {});
    throwIfAborted(call);
    throw toStatementFailure(error, endpoint.description);
  } finally {
    call.signal.removeEventListener("abort", cancel);
  }
}

/** See {@link Database.holdersOf}. Locks of a 64-bit key stand in the server's view with its two halves and a 1. */
export async function findHolders(queries: Kysely<Tables>, name: string): Promise<readonly string[]> {
  const key = lockKey(name);
  const { rows } = await sql<{ holder: string | null; pid: number }>`
    select nullif(activity.application_name, '') as holder, locks.pid
    from pg_locks locks left join pg_stat_activity activity on activity.pid = locks.pid
    where locks.locktype = 'advisory' and locks.granted and locks.objsubid = 1
      and locks.database = (select oid from pg_database where datname = current_database())
      and (locks.classid::bigint << 32 | locks.objid::bigint) = ${key}::bigint
    order by 1, 2`.execute(queries);
  return rows.map(({ holder, pid }) => holder ?? `the database server's process ${pid}`);
}

const APPLICATION_NAME_BYTES_MAX = 63;

/** The server cuts longer names, and replaces what is not ASCII by escapes that may be longer. */
function asApplicationName(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, APPLICATION_NAME_BYTES_MAX);
}

/** The first eight bytes of the name's SHA-256 as a signed 64-bit integer, in text. */
function lockKey(name: string): string {
  return createHash("sha256").update(`stowage lock ${name}`).digest().readBigInt64BE(0).toString();
}

async function cancelQuery(client: Client, endpoint: Endpoint): Promise<void> {
  const { processID } = client as Client & { processID?: number };
  try {
    const other = await connectClient(endpoint, () => {}, createCall());
    await other.query("select pg_cancel_backend($1)", [processID]);
    await other.end();
  } catch {
    await client.end().catch(() => {});
  }
}
