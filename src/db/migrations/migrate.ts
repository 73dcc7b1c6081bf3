import { type Kysely, sql } from "kysely";
import { StowageError } from "../../errors/index.ts";
import { announce, type Call, throwIfAborted } from "../../runtime/index.ts";
import type { Database } from "../database.ts";
import { sqlStateOf } from "../failures.ts";
import type { Tables } from "../tables.ts";
import type { Migration } from "./migration.ts";

/** Another process may just be migrating a large database. */
const LOCK_TIMEOUT_MS = 600_000;
const SERVER_VERSION_MIN = 140_000;
const UNDEFINED_TABLE = "42P01";

/**
 * Brings the schema up to `known`. When it is up to date this is one query; else each missing step is one transaction, under an advisory
 * lock, so that several processes may start at once.
 *
 * @throws StowageError `DB_SCHEMA_NEWER` when a step that is not known here is marked breaking
 */
export async function migrate(
  database: Pick<Database, "sql" | "lock">,
  known: readonly Migration[],
  call: Call,
): Promise<void> {
  if (missing(await readApplied(database.sql), known).length === 0) return;
  await using lock = await database.lock("schema migrations", "exclusive", LOCK_TIMEOUT_MS, call);
  if (lock === undefined) {
    throw new StowageError(
      "DB_FAILED",
      { reason: "another process holds the lock of the schema migrations" },
      { hint: "wait for it to finish, or end it" },
    );
  }
  await checkServer(database.sql);
  for (const migration of missing(await readApplied(database.sql), known)) {
    throwIfAborted(call);
    await database.sql.transaction().execute(async (transaction) => {
      if (migration === known[0]) await createJournal(transaction);
      await migration.up(transaction as unknown as Kysely<unknown>);
      await transaction
        .insertInto("schema_migrations")
        .values({ name: migration.name, is_breaking: migration.isBreaking })
        .execute();
      lock.signal.throwIfAborted();
    });
    announce("db migrated", { migration: migration.name });
    call.log.info({ migration: migration.name }, "schema migrated");
  }
}

type Applied = readonly { readonly name: string; readonly is_breaking: boolean }[];

async function readApplied(db: Kysely<Tables>): Promise<Applied> {
  try {
    return await db.selectFrom("schema_migrations").select(["name", "is_breaking"]).orderBy("name").execute();
  } catch (error) {
    if (sqlStateOf(error) === UNDEFINED_TABLE) return [];
    throw error;
  }
}

function missing(applied: Applied, known: readonly Migration[]): readonly Migration[] {
  const names = new Set(known.map((migration) => migration.name));
  const unknown = applied.find((step) => step.is_breaking && !names.has(step.name));
  if (unknown !== undefined) {
    throw new StowageError(
      "DB_SCHEMA_NEWER",
      { found: unknown.name, known: known.at(-1)?.name ?? "none" },
      { hint: "use a stowage at least as new as the one that wrote this database" },
    );
  }
  const done = new Set(applied.map((step) => step.name));
  return known.filter((migration) => !done.has(migration.name));
}

async function createJournal(db: Kysely<Tables>): Promise<void> {
  await sql`
    create table if not exists schema_migrations (
      name text primary key,
      is_breaking boolean not null,
      applied_at timestamptz not null default now()
    )`.execute(db);
}

async function checkServer(db: Kysely<Tables>): Promise<void> {
  const { rows } = await sql<{ version: number; encoding: string }>`
    select current_setting('server_version_num')::int as version, current_setting('server_encoding') as encoding`.execute(
    db,
  );
  const found = rows[0];
  if (found !== undefined && found.version >= SERVER_VERSION_MIN && found.encoding === "UTF8") return;
  throw new StowageError(
    "DB_FAILED",
    { reason: `the server is version ${found?.version}, encoding ${found?.encoding}` },
    { hint: "stowage needs PostgreSQL 14 or newer and a database with encoding UTF8" },
  );
}
