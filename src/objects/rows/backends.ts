import { sql } from "kysely";
import { type Database, sqlStateOf } from "../../db/index.ts";

export interface BackendRow {
  readonly id: number;
  readonly driver: string;
  readonly settings: Readonly<Record<string, unknown>>;
  /** Its name in marker objects. */
  readonly mark: string;
  /** Number of the marker object that holds; 0 when none was made yet. */
  readonly generation: number;
  readonly token: string | undefined;
  readonly nextToken: string | undefined;
}

const columns = ["id", "driver", "settings", "mark", "generation", "token", "next_token"] as const;

/** The row of a backend, registered on first use. `settings` have no secrets. */
export async function registerBackend(
  database: Database,
  driver: string,
  settings: Readonly<Record<string, unknown>>,
): Promise<BackendRow> {
  const find = () =>
    database.sql
      .selectFrom("backends")
      .select(columns)
      .where("driver", "=", driver)
      .where("settings", "=", sql<Record<string, unknown>>`${JSON.stringify(settings)}::jsonb`)
      .executeTakeFirst();
  const known = await find();
  if (known) return rowOf(known);
  await database.sql
    .insertInto("backends")
    .values({ driver, settings: JSON.stringify(settings) })
    .onConflict((conflict) => conflict.columns(["driver", "settings"]).doNothing())
    .execute();
  const made = await find();
  if (made === undefined) throw new TypeError("a backend's row vanished");
  return rowOf(made);
}

export async function readBackends(database: Database): Promise<readonly BackendRow[]> {
  const rows = await database.sql.selectFrom("backends").select(columns).orderBy("id").execute();
  return rows.map(rowOf);
}

export async function readBackend(database: Database, id: number): Promise<BackendRow | undefined> {
  const row = await database.sql.selectFrom("backends").select(columns).where("id", "=", id).executeTakeFirst();
  return row === undefined ? undefined : rowOf(row);
}

/** Records the intent to write the next marker, unless one was recorded before; returns what it is to say, or nothing when `generation` is over. */
export async function intendMarker(
  database: Database,
  id: number,
  generation: number,
  token: string,
): Promise<string | undefined> {
  const row = await database.sql
    .updateTable("backends")
    .set({ next_token: sql<string>`coalesce(next_token, ${token}::uuid)` })
    .where("id", "=", id)
    .where("generation", "=", generation)
    .returning("next_token")
    .executeTakeFirst();
  return row?.next_token ?? undefined;
}

/** The marker that was intended lies at the backend. */
export async function recordMarker(database: Database, id: number, generation: number, token: string): Promise<void> {
  await database.sql
    .updateTable("backends")
    .set({ generation, token, next_token: null })
    .where("id", "=", id)
    .where("generation", "=", generation - 1)
    .where("next_token", "=", token)
    .execute();
}

/** The place that `alias` names is the one of `id`, under another address: `id` takes the address, the row of the alias goes. */
export async function mergeBackends(database: Database, id: number, alias: BackendRow): Promise<void> {
  await database.sql.transaction().execute(async (tx) => {
    await tx.deleteFrom("backends").where("id", "=", alias.id).execute();
    await tx
      .updateTable("backends")
      .set({ driver: alias.driver, settings: JSON.stringify(alias.settings) })
      .where("id", "=", id)
      .execute();
  });
}

/** How many objects lie at each of these backends. */
export async function objectsByBackend(
  database: Database,
  ids: readonly number[],
): Promise<ReadonlyMap<number, number>> {
  if (ids.length === 0) return new Map();
  const rows = await database.sql
    .selectFrom("locations")
    .where("backend_id", "in", ids)
    .where("state", "=", "live")
    .groupBy("backend_id")
    .select(({ fn }) => ["backend_id", fn.countAll<number>().as("count")])
    .execute();
  return new Map(rows.map((row) => [row.backend_id, row.count]));
}

export interface Installation {
  readonly id: string;
  /** The physical database that it was when this was recorded. */
  readonly recordedIdentity: string | undefined;
  /** The physical database that it is. */
  readonly identity: string;
}

const insufficientPrivilege = "42501";

/**
 * Which installation this is and in which physical database it lies: the cluster's identifier, the timeline of its log, and when its first file was
 * put where it is. A dump that was restored differs in the first, a restored backup or a promoted replica in the others.
 */
export async function readInstallation(database: Database): Promise<Installation> {
  const { id, database_identity } = await database.sql
    .selectFrom("installations")
    .select(["id", "database_identity"])
    .executeTakeFirstOrThrow();
  const parts = [
    await answer(database, sql`select system_identifier::text as value from pg_control_system()`),
    await answer(database, sql`select timeline_id::text as value from pg_control_checkpoint()`),
    await answer(database, sql`select extract(epoch from change)::text as value from pg_stat_file('PG_VERSION')`),
    await answer(database, sql`select oid::text as value from pg_database where datname = current_database()`),
  ];
  return { id, recordedIdentity: database_identity ?? undefined, identity: parts.join(":") };
}

/** What the server says, or nothing where this user may not ask. */
async function answer(database: Database, question: ReturnType<typeof sql>): Promise<string> {
  try {
    const { rows } = await question.execute(database.sql);
    return (rows as { value: string }[])[0]?.value ?? "";
  } catch (error) {
    if (sqlStateOf(error) === insufficientPrivilege) return "";
    throw error;
  }
}

export async function recordIdentity(database: Database, identity: string, before: string | undefined): Promise<void> {
  await database.sql
    .updateTable("installations")
    .set({ database_identity: identity })
    .where("database_identity", before === undefined ? "is" : "=", before ?? null)
    .execute();
}

function rowOf(row: {
  readonly id: number;
  readonly driver: string;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly mark: string;
  readonly generation: number;
  readonly token: string | null;
  readonly next_token: string | null;
}): BackendRow {
  const { next_token, token, ...rest } = row;
  return { ...rest, token: token ?? undefined, nextToken: next_token ?? undefined };
}
