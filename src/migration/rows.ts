import { sql } from "kysely";
import { type Database, type MigrationState, type MoveState, sqlStateOf, type Transaction } from "../db/index.ts";
import { StowageError } from "../errors/index.ts";
import { type Move, unfinished } from "./moves.ts";
import type { Selection } from "./selection.ts";

/** A place as a migration names it, without secrets. */
export interface PlaceName {
  readonly driver: string;
  /** For people. */
  readonly place: string;
}

export interface MigrationOptions {
  readonly selection: Omit<Selection, "since" | "until"> & { readonly since?: string; readonly until?: string };
  readonly keepsSources: boolean;
  readonly verify: "readback" | "checksum";
  /** Others read and write meanwhile. */
  readonly isOnline: boolean;
  /** Paths of the configuration files that it was ordered with. */
  readonly files: readonly [source: string, destination: string];
}

export interface MigrationRecord {
  readonly id: number;
  readonly state: MigrationState;
  readonly source: PlaceName;
  readonly destination: PlaceName;
  readonly options: MigrationOptions;
  readonly executor: string;
  readonly objects: number;
  readonly bytes: number;
  readonly createdAt: Date;
  readonly startedAt: Date | undefined;
  readonly endedAt: Date | undefined;
  readonly updatedAt: Date;
}

/** What a selection would move: one line for each bucket and destination. */
export interface SelectedGroup {
  readonly bucket: string;
  readonly destinationBackendId: number;
  readonly objects: number;
  readonly bytes: number;
}

function selected({ sourceBackendId, destinationBackendId, archiveBackendId, ...narrowed }: Selection) {
  const { buckets, account, since, until } = narrowed;
  const destination = sql<number>`(case when locations.bucket = 'analysis_archive' then ${archiveBackendId}::integer
    else ${destinationBackendId}::integer end)`;
  const conditions = [
    sql`locations.backend_id = ${sourceBackendId}`,
    sql`${destination} <> ${sourceBackendId}`,
    ...(buckets === undefined ? [] : [sql`locations.bucket = any(${buckets}::text[])`]),
    ...(account === undefined ? [] : [sql`locations.account = ${account}`]),
    // When the version was written: a location is as young as the last migration.
    ...(since === undefined ? [] : [sql`objects.updated_at >= ${since}`]),
    ...(until === undefined ? [] : [sql`objects.updated_at < ${until}`]),
  ];
  return {
    destination,
    from: sql`objects join locations on locations.id = objects.location_id where ${sql.join(conditions, sql` and `)}`,
  };
}

export async function previewSelection(database: Database, selection: Selection): Promise<readonly SelectedGroup[]> {
  const { destination, from } = selected(selection);
  const { rows } = await sql<{ bucket: string; destination: number; objects: number; bytes: number }>`
    select locations.bucket, ${destination} as destination, count(*) as objects,
      coalesce(sum(locations.stored_bytes), 0)::bigint as bytes
    from ${from} group by 1, 2 order by 1, 2`.execute(database.sql);
  return rows.map((row) => ({
    bucket: row.bucket,
    destinationBackendId: row.destination,
    objects: row.objects,
    bytes: row.bytes,
  }));
}

/** Until the transaction ends, nobody else plans. */
export async function planAlone(tx: Transaction): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended('stowage plans a migration', 0))`.execute(tx.sql);
}

export async function insertMigration(
  tx: Transaction,
  migration: Pick<MigrationRecord, "source" | "destination" | "options" | "executor">,
): Promise<number> {
  const { id } = await tx.sql
    .insertInto("migrations")
    .values({
      state: "planning",
      source: JSON.stringify(migration.source),
      destination: JSON.stringify(migration.destination),
      options: JSON.stringify(migration.options),
      executor: migration.executor,
    })
    .returning("id")
    .executeTakeFirstOrThrow();
  return id;
}

const uniqueViolation = "23505";

/**
 * Writes down every object that a selection has just now, and what all of them are together. Returns how many are new.
 * @throws StowageError `MIGRATION_OVERLAPS` when another migration has one of them
 */
export async function planMoves(tx: Transaction, id: number, selection: Selection): Promise<number> {
  const { destination, from } = selected(selection);
  try {
    const result = await sql`
      insert into migration_moves (migration_id, source_location_id, account, bucket, object_key, version, source_backend_id,
        destination_backend_id, content_digest, content_bytes, stored_bytes, state)
      select ${id}, locations.id, locations.account, locations.bucket, locations.object_key, objects.version,
        locations.backend_id, ${destination}, content_digest, content_bytes, stored_bytes, 'planned'
      from ${from}
      on conflict (migration_id, source_location_id) do nothing`.execute(tx.sql);
    const planned = Number(result.numAffectedRows ?? 0n);
    if (planned > 0) await recordTotals(tx, id);
    return planned;
  } catch (error) {
    if (sqlStateOf(error) !== uniqueViolation) throw error;
    throw new StowageError(
      "MIGRATION_OVERLAPS",
      {},
      { cause: error, hint: "see it with: stowage objectstorage list-migrations; resume or cancel it first" },
    );
  }
}

/** The unfinished migration that has an object of the selection. */
export async function findOverlapping(
  database: Pick<Database, "sql">,
  selection: Selection,
): Promise<number | undefined> {
  const { from } = selected(selection);
  const { rows } = await sql<{ id: number }>`
    select migration_id as id from migration_moves
    where state = any(${unfinished}::text[]) and source_location_id in (select locations.id from ${from})
    limit 1`.execute(database.sql);
  return rows[0]?.id;
}

/** Whoever begins a migration, goes on with it or cancels it; each has a number of its own. */
export interface MigrationLife {
  readonly id: number;
  readonly life: number;
}

/** From now on whoever was at the migration before can change nothing. Nothing is returned when it has ended. */
export async function beginLife(database: Database, id: number, executor?: string): Promise<MigrationLife | undefined> {
  const row = await database.sql
    .updateTable("migrations")
    .set({
      lives: sql<number>`lives + 1`,
      updated_at: sql<string>`now()`,
      ...(executor === undefined
        ? {}
        : { executor, state: "running", started_at: sql<string>`coalesce(started_at, now())`, ended_at: null }),
    })
    .where("id", "=", id)
    .where("state", "not in", ["complete", "cancelled"])
    .returning("lives")
    .executeTakeFirst();
  return row && { id, life: row.lives };
}

/**
 * Makes sure that nobody has gone on with the migration since, until the transaction ends. A process that stood still can be taken for dead while it
 * does not know yet that its lock is lost.
 * @throws StowageError `DB_LOCK_LOST`
 */
export async function expectLife(tx: Transaction, { id, life }: MigrationLife): Promise<void> {
  const row = await tx.sql
    .selectFrom("migrations")
    .select("id")
    .where("id", "=", id)
    .where("lives", "=", life)
    .where("state", "not in", ["complete", "cancelled"])
    .forShare()
    .executeTakeFirst();
  if (row !== undefined) return;
  const hint = "another process has gone on with it: see it with: stowage objectstorage list-migrations";
  throw new StowageError("DB_LOCK_LOST", { lock: `migration ${id}` }, { hint });
}

export async function endMigration(
  tx: Transaction,
  id: number,
  state: "complete" | "incomplete" | "cancelled",
): Promise<void> {
  await tx.sql
    .updateTable("migrations")
    .set({ state, updated_at: sql<string>`now()`, ended_at: sql<string>`now()` })
    .where("id", "=", id)
    .execute();
}

/** Lets all moves of a migration end where they are; returns how many had not been switched. What was switched is at its destination. */
export async function abandonMoves(tx: Transaction, id: number): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    with abandoned as (
      update migration_moves set state = 'abandoned', updated_at = now()
      where migration_id = ${id} and state in ('planned', 'copied', 'verified') returning 1),
    switched as (
      update migration_moves set state = 'done', updated_at = now()
      where migration_id = ${id} and state = 'switched')
    select count(*) as count from abandoned`.execute(tx.sql);
  return rows[0]?.count ?? 0;
}

/** Objects and bytes as planned, from the moves. */
async function recordTotals(tx: Transaction, id: number): Promise<void> {
  await sql`
    update migrations set updated_at = now(), (objects, bytes) = (
      select count(*), coalesce(sum(stored_bytes), 0) from migration_moves where migration_id = ${id})
    where id = ${id}`.execute(tx.sql);
}

/** Moves of one state after a location, in the order of their sources. */
export async function claimMoves(
  database: Database,
  id: number,
  state: MoveState,
  after: number,
  limit: number,
): Promise<readonly Move[]> {
  const rows = await database.sql
    .selectFrom("migration_moves")
    .selectAll()
    .where("migration_id", "=", id)
    .where("state", "=", state)
    .where("source_location_id", ">", after)
    .orderBy("source_location_id")
    .limit(limit)
    .execute();
  return rows.map((row) => ({
    sourceLocationId: row.source_location_id,
    sourceBackendId: row.source_backend_id,
    destinationBackendId: row.destination_backend_id,
    destinationLocationId: row.destination_location_id ?? undefined,
    storedBytes: row.stored_bytes,
    state: row.state,
  }));
}

/** Compare-and-set along the table of moves; returns those that were moved on. */
export async function advanceMoves(
  tx: Transaction,
  id: number,
  sources: readonly number[],
  from: MoveState,
  to: MoveState,
): Promise<readonly number[]> {
  if (sources.length === 0) return [];
  const { rows } = await sql<{ source: number }>`
    update migration_moves set state = ${to}, updated_at = now(), error_code = null, error_text = null
    where migration_id = ${id} and source_location_id = any(${sources}::bigint[]) and state = ${from}
    returning source_location_id as source`.execute(tx.sql);
  return rows.map(({ source }) => source);
}

export async function setDestinations(
  tx: Transaction,
  id: number,
  copies: readonly { readonly sourceLocationId: number; readonly locationId: number }[],
): Promise<void> {
  if (copies.length === 0) return;
  await sql`
    update migration_moves set destination_location_id = copy.location
    from unnest(${copies.map((copy) => copy.sourceLocationId)}::bigint[], ${copies.map((copy) => copy.locationId)}::bigint[])
      as copy (source, location)
    where migration_id = ${id} and source_location_id = copy.source`.execute(tx.sql);
}

/** Notes why moves could not go on, beside their states; back to `planned` where a copy is worth nothing. */
export async function noteFailures(
  tx: Transaction,
  id: number,
  failures: readonly { readonly sourceLocationId: number; readonly error: StowageError }[],
  restart: boolean,
): Promise<void> {
  if (failures.length === 0) return;
  await sql`
    update migration_moves set attempts = attempts + 1, error_code = failure.code, error_text = failure.text,
      updated_at = now(), state = case when ${restart}::boolean then 'planned' else state end
    from unnest(
      ${failures.map((failure) => failure.sourceLocationId)}::bigint[], ${failures.map(({ error }) => error.code)}::text[],
      ${failures.map(({ error }) => error.message.slice(0, 2000))}::text[]) as failure (source, code, text)
    where migration_id = ${id} and source_location_id = failure.source and state <> 'done'`.execute(tx.sql);
}

/** Moves in a state, and their bytes. */
export type MoveCounts = Readonly<Record<MoveState, { readonly objects: number; readonly bytes: number }>> & {
  readonly failed: { readonly objects: number; readonly bytes: number };
};

/** How many moves there are in each state, and when the last of them changed. */
export async function countMoves(
  queries: Database["sql"] | Transaction["sql"],
  id: number,
): Promise<MoveCounts & { readonly lastAt: Date | undefined }> {
  const { rows } = await sql<{ state: MoveState; failed: boolean; objects: number; bytes: number; last: Date }>`
    select state, error_code is not null as failed, count(*) as objects, coalesce(sum(stored_bytes), 0)::bigint as bytes,
      max(updated_at) as last
    from migration_moves where migration_id = ${id} group by 1, 2`.execute(queries);
  const none = () => ({ objects: 0, bytes: 0 });
  const counts = {
    planned: none(),
    copied: none(),
    verified: none(),
    switched: none(),
    done: none(),
    superseded: none(),
    abandoned: none(),
    failed: none(),
  };
  for (const { state, failed, objects, bytes } of rows) {
    for (const group of failed ? [counts[state], counts.failed] : [counts[state]]) {
      group.objects += objects;
      group.bytes += bytes;
    }
  }
  const times = rows.map(({ last }) => last.getTime());
  return { ...counts, lastAt: times.length === 0 ? undefined : new Date(Math.max(...times)) };
}

export interface FailedMove {
  readonly account: string;
  readonly bucket: string;
  readonly key: string;
  readonly state: MoveState;
  readonly attempts: number;
  readonly code: string;
  readonly text: string;
}

/** Every object that could not go on, with the last reason. */
export async function* failedMoves(database: Database, id: number): AsyncGenerator<FailedMove> {
  const pageSize = 1000;
  for (let after = 0; ; ) {
    const rows = await database.sql
      .selectFrom("migration_moves")
      .selectAll()
      .where("migration_id", "=", id)
      .where("error_code", "is not", null)
      .where("source_location_id", ">", after)
      .orderBy("source_location_id")
      .limit(pageSize)
      .execute();
    for (const row of rows) {
      yield {
        account: row.account,
        bucket: row.bucket,
        key: row.object_key,
        state: row.state,
        attempts: row.attempts,
        code: row.error_code ?? "",
        text: row.error_text ?? "",
      };
    }
    if (rows.length < pageSize) return;
    after = rows.at(-1)?.source_location_id ?? after;
  }
}

export async function findMigration(database: Database, id: number): Promise<MigrationRecord | undefined> {
  const row = await database.sql.selectFrom("migrations").selectAll().where("id", "=", id).executeTakeFirst();
  return row && recordOf(row);
}

export async function listMigrationRecords(database: Pick<Database, "sql">): Promise<readonly MigrationRecord[]> {
  const rows = await database.sql.selectFrom("migrations").selectAll().orderBy("id").execute();
  return rows.map(recordOf);
}

function recordOf(row: {
  readonly id: number;
  readonly state: MigrationState;
  readonly source: unknown;
  readonly destination: unknown;
  readonly options: unknown;
  readonly executor: string;
  readonly objects: number;
  readonly bytes: number;
  readonly created_at: Date;
  readonly started_at: Date | null;
  readonly ended_at: Date | null;
  readonly updated_at: Date;
}): MigrationRecord {
  return {
    id: row.id,
    state: row.state,
    source: row.source as PlaceName,
    destination: row.destination as PlaceName,
    options: row.options as MigrationOptions,
    executor: row.executor,
    objects: row.objects,
    bytes: row.bytes,
    createdAt: row.created_at,
    startedAt: row.started_at ?? undefined,
    endedAt: row.ended_at ?? undefined,
    updatedAt: row.updated_at,
  };
}
