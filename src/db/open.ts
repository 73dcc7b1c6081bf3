import { Kysely, PostgresDialect } from "kysely";
import { defaultDatabase } from "../config/index.ts";
import { type Call, throwIfAborted } from "../runtime/index.ts";
import type { Database, DatabaseLocation, HeldLock } from "./database.ts";
import { type EmbeddedOptions, useEmbeddedServer } from "./embedded/index.ts";
import { createPool } from "./endpoint.ts";
import { acquireLock, findHolders, LockSession } from "./locks.ts";
import { migrate, migrations } from "./migrations/index.ts";
import type { Tables } from "./tables.ts";
import { runTransaction } from "./transactions.ts";
import { openServerEndpoint } from "./url.ts";

export interface DatabaseOptions extends Pick<EmbeddedOptions, "whileWaiting"> {
  /** Connections for statements and transactions; each held lock has one more. Default: the location's own, else that of the configuration. */
  readonly connectionsMax?: number;
  /** How others are told who holds a lock of this database: `stowage analyze 1234@host`. At most 63 bytes are kept. */
  readonly applicationName?: string;
}

/**
 * Opens the database and brings its schema up to date. Closing the result closes its pool and locks and, for an embedded database
 * that nobody else uses, stops the server.
 *
 * @throws StowageError `CONFIG_INVALID` a bad URL · `DB_UNREACHABLE` · `ACCESS_DENIED` user or password refused ·
 * `DB_EMBEDDED_FAILED` · `DB_SCHEMA_NEWER`
 */
export async function openDatabase(
  location: DatabaseLocation,
  options: DatabaseOptions,
  call: Call,
): Promise<Database> {
  await using opening = new AsyncDisposableStack();
  const endpoint =
    location.kind === "embedded"
      ? opening.use(await useEmbeddedServer(location.dataDirectory, options, call)).endpoint
      : await openServerEndpoint(location.url, location.settings);
  const settings = location.kind === "server" ? location.settings : undefined;
  const pool = createPool(
    endpoint,
    options.connectionsMax ?? settings?.connectionsMax ?? defaultDatabase.connectionsMax,
    call,
  );
  opening.defer(() => pool.end());
  const sql = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
  const session = opening.use(new LockSession(endpoint, options.applicationName, call));
  const locks = new Set<HeldLock>();
  opening.defer(async () => {
    await Promise.all([...locks].map((lock) => lock[Symbol.asyncDispose]()));
  });

  const database: Omit<Database, typeof Symbol.asyncDispose> = {
    sql,
    description: endpoint.description,
    binaryRows: (query) => pool.binaryRows(query),
    transaction: (work, under) => runTransaction(sql, work, under),
    async lock(name, mode, timeoutMs, under) {
      throwIfAborted(under);
      const free = mode === "exclusive" ? await session.tryLock(name) : undefined;
      const held =
        free ?? (await acquireLock(endpoint, { name, mode, timeoutMs, holder: options.applicationName }, under));
      if (held === undefined) return undefined;
      const registered: HeldLock = {
        signal: held.signal,
        async [Symbol.asyncDispose]() {
          locks.delete(registered);
          await held[Symbol.asyncDispose]();
        },
      };
      locks.add(registered);
      return registered;
    },
    holdersOf: (name) => findHolders(sql, name),
  };
  await migrate(database, migrations, call);
  const opened = opening.move();
  return { ...database, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}
