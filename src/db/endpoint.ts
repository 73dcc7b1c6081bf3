import { setTimeout as delay } from "node:timers/promises";
import type { PostgresPool, PostgresPoolClient } from "kysely";
import pg, { type ClientConfig, type PoolClient } from "pg";
import { defaultDatabase } from "../config/index.ts";
import { type Call, throwIfAborted } from "../runtime/index.ts";
import { type BinaryRow, BinaryRowsQuery } from "./binary-rows.ts";
import { isComingOrGoing, toConnectFailure, toStatementFailure } from "./failures.ts";
import { sendLongParametersUncopied } from "./long-parameters.ts";

/** Where a database is, in `pg`'s terms. */
export interface Endpoint {
  /** How to connect just now. */
  readonly client: ClientConfig;
  readonly connectTimeoutMs?: number;
  /** Told of a failed attempt: whether `client` is another one now, with which it may succeed. */
  adapt?(error: unknown): boolean;
  /** For people, without the password. */
  readonly description: string;
}

/** How long a server may be "starting up" or "shutting down" before that is a failure: a crash recovery can take minutes. */
const COMING_OR_GOING_MS = 120_000;
/** Of one connection. Each keeps memory at the server. */
const STATEMENTS_MAX = 200;
const TIMES_UNNAMED = 3;
/** How long a statement waits for one of the pool's connections. Only a bug (or a hung server) makes it this long. */
const POOL_WAIT_MS = 300_000;

/**
 * No wait for another's lock without an end, and an end to a lock whose holder was stopped or lost in the middle of a transaction, before those who wait
 * for it give up: between two statements of a transaction nobody waits for anything else. Set by a statement: poolers refuse unknown start-up parameters.
 */
const SESSION_LIMITS = `select set_config('lock_timeout', '60s', false),
  set_config('idle_in_transaction_session_timeout', '30s', false)`;

const INT8 = 20;

/** `bigint` as a number; a value that a number can't hold is refused, not rounded. */
function parseBigint(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new RangeError(`a bigint is too large for a number: ${text}`);
  return value;
}

const types: ClientConfig["types"] = {
  getTypeParser: (oid: number, format?: "text" | "binary") =>
    oid === INT8 && format !== "binary" ? parseBigint : pg.types.getTypeParser(oid, format as "text"),
} as NonNullable<ClientConfig["types"]>;

/**
 * Clients of an endpoint as it is when each is made. Their connecting is bounded; the pool's own option of that name would also bound the wait for a
 * free connection.
 */
function clientClass(endpoint: Endpoint): typeof pg.Client {
  return class extends pg.Client {
    constructor(config?: string | ClientConfig) {
      const connectionTimeoutMillis = endpoint.connectTimeoutMs ?? defaultDatabase.connectTimeoutMs;
      super({ ...(typeof config === "object" ? config : {}), ...endpoint.client, types, connectionTimeoutMillis });
      sendLongParametersUncopied(this.connection);
    }
  };
}

/** A connection of its own, outside of the pool: for session state. The caller ends it and listens to its `error` event. */
export async function connectClient(
  endpoint: Endpoint,
  onError: (error: Error) => void,
  call: Call,
  applicationName = "stowage",
): Promise<pg.Client> {
  return await withPatience(endpoint, call, async () => {
    const client = new (clientClass(endpoint))({ application_name: applicationName });
    client.on("error", onError);
    try {
      await client.connect();
      return client;
    } catch (error) {
      await client.end().catch(() => {});
      throw error;
    }
  });
}

/** One attempt, without patience: is there a server, and does it take connections? */
export async function tryConnection(endpoint: Endpoint): Promise<void> {
  const client = new (clientClass(endpoint))();
  client.on("error", () => {});
  try {
    await client.connect();
  } finally {
    await client.end().catch(() => {});
  }
}

export interface Pool extends PostgresPool {
  /** See {@link BinaryRowsQuery}. */
  binaryRows(query: string): Promise<readonly BinaryRow[]>;
}

/** A bounded pool in the form that Kysely takes, whose failures are errors of ours. */
export function createPool(endpoint: Endpoint, connectionsMax: number, call: Call): Pool {
  const Client = clientClass(endpoint);
  const pool = new pg.Pool({
    application_name: "stowage",
    max: connectionsMax,
    connectionTimeoutMillis: POOL_WAIT_MS,
    Client,
  });
  // An idle connection that ends is replaced by the next statement that needs one.
  pool.on("error", (error) => call.log.debug({ reason: error.message }, "idle connection lost"));
  // A connection lost while it is checked out fails the statement; the event says the same once more. It can come before the first statement.
  pool.on("connect", (client) => client.on("error", () => {}));
  const wrapped = new WeakMap<PoolClient, PostgresPoolClient>();
  const connect = async () => {
    const client = await withPatience(endpoint, call, () => pool.connect());
    if (wrapped.has(client)) return client;
    try {
      await client.query(SESSION_LIMITS);
    } catch (error) {
      client.release(true);
      throw toStatementFailure(error, endpoint.description);
    }
    wrapped.set(client, wrap(client, endpoint.description));
    return client;
  };
  return {
    options: pool.options,
    Client,
    connect: async () => wrapped.get(await connect()) as PostgresPoolClient,
    async binaryRows(query) {
      const client = await connect();
      try {
        return await client.query(new BinaryRowsQuery(query)).rows;
      } catch (error) {
        throw toStatementFailure(error, endpoint.description, { text: query, user: userOf(client) });
      } finally {
        client.release();
      }
    },
    end: () => pool.end(),
  };
}

/** Statements that come again and again on one connection get a name, under which the server keeps what it has parsed and planned. */
class Statements {
  readonly #seen = new Map<string, { times: number; name: string | undefined }>();
  #named = 0;

  nameOf(sql: string): string | undefined {
    let statement = this.#seen.get(sql);
    if (statement === undefined) {
      // Those of as many parameters as there happen to be values come once or twice each.
      if (this.#seen.size >= STATEMENTS_MAX) this.#forgetUnnamed();
      if (this.#seen.size >= STATEMENTS_MAX) return undefined;
      statement = { times: 0, name: undefined };
      this.#seen.set(sql, statement);
    }
    if (statement.name === undefined && ++statement.times > TIMES_UNNAMED) statement.name = `s${++this.#named}`;
    return statement.name;
  }

  #forgetUnnamed(): void {
    for (const [sql, { name }] of this.#seen) if (name === undefined) this.#seen.delete(sql);
  }
}

/** The name that it logged in with. */
function userOf(client: PoolClient): string | undefined {
  return (client as PoolClient & { readonly user?: string }).user;
}

function wrap(client: PoolClient, database: string): PostgresPoolClient {
  const statements = new Statements();
  const query = async (sql: string, parameters: readonly unknown[]) => {
    try {
      const name = parameters.length > 0 ? statements.nameOf(sql) : undefined;
      return await client.query({ ...(name === undefined ? {} : { name }), text: sql, values: [...parameters] });
    } catch (error) {
      throw toStatementFailure(error, database, { text: sql, user: userOf(client) });
    }
  };
  const { processID } = client as PoolClient & { processID?: number };
  return {
    query: query as unknown as PostgresPoolClient["query"],
    release: (destroy?: boolean) => client.release(destroy),
    ...(processID === undefined ? {} : { processID }),
  };
}

async function withPatience<T>(endpoint: Endpoint, call: Call, connect: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + COMING_OR_GOING_MS;
  for (let waitMs = 10; ; waitMs = Math.min(waitMs * 2, 500)) {
    try {
      return await connect();
    } catch (error) {
      if (endpoint.adapt?.(error)) continue;
      if (!isComingOrGoing(error) || performance.now() > deadline) {
        throw toConnectFailure(error, endpoint.description);
      }
      // Not before: the pool outlives the call that opened it, and an interrupted command still has to put things in order.
      throwIfAborted(call);
      await delay(waitMs);
    }
  }
}
