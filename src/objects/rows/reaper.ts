import { sql } from "kysely";
import type { Database } from "../../db/index.ts";
import type { PhysicalKey } from "../driver.ts";
import { mayHaveBytes } from "./locations.ts";

/** A location as far as reading and deleting need it. */
export interface LocationRow {
  readonly id: number;
  readonly physicalKey: PhysicalKey;
  /** Where it was proven. */
  readonly storedBytes: number | undefined;
  /** A put of it that ended may still be told again by the network, or a writer that was believed dead is at work: it is deleted once more later. */
  readonly isUnsettled: boolean;
}

/**
 * Decides which locations go: pending ones whose writer's lease has ended, retired ones whose grace period is over. Returns how many.
 * Where `isAlone`, nobody else has the store open: no writer is alive and nobody reads.
 */
export async function condemn(
  database: Database,
  backendId: number,
  { graceSeconds, isAlone }: { readonly graceSeconds: number; readonly isAlone: boolean },
  limit: number,
): Promise<number> {
  const result = await database.sql
    // A table of its own: the planner may run a subquery more than once, each time with other rows and a limit of its own.
    .with(
      (table) => table("candidates").materialized(),
      (query) =>
        query
          .selectFrom("locations")
          .where("backend_id", "=", backendId)
          // Checked again on the locked row: its writer may have renewed the lease, or published, meanwhile.
          .where(({ eb, or, and }) =>
            or([
              // What a migration holds it goes on with, however long it was interrupted.
              and([
                eb("state", "=", "pending"),
                ...(isAlone ? [] : [eb("lease_until", "<", sql<Date>`now()`)]),
                eb("migration_id", "is", null),
              ]),
              and([eb("state", "=", "retired"), ...(isAlone ? [] : [eb("state_since", "<=", ago(graceSeconds))])]),
            ]),
          )
          .select("id")
          .orderBy("id")
          .limit(limit)
          .forUpdate()
          .skipLocked(),
    )
    .updateTable("locations")
    .set({ state: "deleting", state_since: sql<string>`now()` })
    .where("id", "in", (query) => query.selectFrom("candidates").select("candidates.id"))
    .executeTakeFirst();
  return Number(result.numUpdatedRows);
}

/**
 * Locations whose bytes are to go: at once, and those where something may still arrive again when that is too late to happen.
 *
 * @param lateSeconds how long after its writer's right has ended a request can still take effect at the backend
 * @param repeats whether a put that was proven can take effect again, because a request was sent twice
 */
export async function condemned(
  database: Database,
  backendId: number,
  { lateSeconds, repeats }: { readonly lateSeconds: number; readonly repeats: boolean },
  limit: number,
): Promise<readonly LocationRow[]> {
  const isSettled = repeats
    ? sql<boolean>`coalesce(proven_at <= ${ago(lateSeconds)}, false)`
    : sql<boolean>`(proven_at is not null)`;
  const isLate = sql<boolean>`(state_since <= ${ago(lateSeconds)})`;
  const rows = await database.sql
    .selectFrom("locations")
    .where("backend_id", "=", backendId)
    .where("state", "=", "deleting")
    .where(({ eb, or }) => or([isSettled, eb("writer", "is not", null), isLate]))
    .select(["id", "physical_key", "stored_bytes", sql<boolean>`not (${isSettled} or ${isLate})`.as("unsettled")])
    // Those that could not be deleted come last, so that they never keep the others.
    .orderBy("lease_until", (order) => order.asc().nullsFirst())
    .orderBy("id")
    .limit(limit)
    .execute();
  return rows.map((row) => ({
    id: row.id,
    physicalKey: row.physical_key as PhysicalKey,
    storedBytes: row.stored_bytes ?? undefined,
    isUnsettled: row.unsettled,
  }));
}

/** Decides that these go now, whoever may still be reading them: the caller knows that nobody is. */
export async function condemnAtOnce(database: Database, ids: readonly number[]): Promise<void> {
  if (ids.length === 0) return;
  await database.sql
    .updateTable("locations")
    .set({ state: "deleting", state_since: sql<string>`now()` })
    .where(isAmong("id", ids))
    .where("state", "=", "retired")
    .execute();
}

/** Which of these still have bytes that are to go. */
export async function condemnedAmong(
  database: Database,
  ids: readonly number[],
  lateSeconds: number,
): Promise<readonly (LocationRow & { readonly backendId: number })[]> {
  if (ids.length === 0) return [];
  const isSettled = sql<boolean>`(driver = 'db' or coalesce(proven_at <= ${ago(lateSeconds)}, false))`;
  const rows = await database.sql
    .selectFrom("locations")
    .innerJoin("backends", "backends.id", "backend_id")
    .where(isAmong("locations.id", ids))
    .where("state", "=", "deleting")
    .where("writer", "is not", null)
    .select([
      "locations.id",
      "backend_id",
      "physical_key",
      "stored_bytes",
      sql<boolean>`not ${isSettled}`.as("unsettled"),
    ])
    .execute();
  return rows.map((row) => ({
    id: row.id,
    backendId: row.backend_id,
    physicalKey: row.physical_key as PhysicalKey,
    storedBytes: row.stored_bytes ?? undefined,
    isUnsettled: row.unsettled,
  }));
}

/** Which of these still have bytes that nobody has deleted. */
export async function notDeleted(database: Database, ids: readonly number[]): Promise<readonly number[]> {
  if (ids.length === 0) return [];
  const rows = await database.sql
    .selectFrom("locations")
    .where(isAmong("id", ids))
    .where(mayHaveBytes)
    .select("id")
    .execute();
  return rows.map(({ id }) => id);
}

/** The first deletion is done; the rows wait for the second. */
export async function markDeletedOnce(database: Database, ids: readonly number[]): Promise<void> {
  if (ids.length === 0) return;
  await database.sql
    .updateTable("locations")
    .set({ writer: null })
    .where(isAmong("id", ids))
    .where("state", "=", "deleting")
    .execute();
}

/** Its bytes could not be deleted: others first, the next time. */
export async function postpone(database: Database, id: number): Promise<void> {
  await database.sql
    .updateTable("locations")
    .set({ lease_until: sql<string>`now()` })
    .where("id", "=", id)
    .where("state", "=", "deleting")
    .execute();
}

export async function removeLocations(database: Database, ids: readonly number[]): Promise<void> {
  if (ids.length === 0) return;
  await database.sql.deleteFrom("locations").where(isAmong("id", ids)).where("state", "=", "deleting").execute();
}

/** One parameter, however many they are: the statement is always the same. */
function isAmong(column: "id" | "locations.id", ids: readonly number[]) {
  return sql<boolean>`${sql.ref(column)} = any(${ids}::bigint[])`;
}

function ago(seconds: number) {
  return sql<Date>`now() - make_interval(secs => ${seconds})`;
}

/** What could be reclaimed now, and what once its grace period or lease is over. */
export interface Reclaimable {
  readonly backendId: number;
  readonly state: "pending" | "retired" | "deleting";
  readonly isDue: boolean;
  /** When the last of them is due; 0 when all are. */
  readonly dueInSeconds: number;
  readonly locations: number;
  readonly bytes: number;
}

export async function reclaimable(
  database: Database,
  { graceSeconds, lateSeconds }: { readonly graceSeconds: number; readonly lateSeconds: number },
): Promise<readonly Reclaimable[]> {
  const seconds = sql<number>`greatest(0, coalesce(ceil(extract(epoch from case
    when state = 'pending' then lease_until
    when state = 'retired' then state_since + make_interval(secs => ${graceSeconds})
    when writer is null then state_since + make_interval(secs => ${lateSeconds})
    end - now())), 0))::integer`;
  const rows = await database.sql
    // Grouped by name: an expression with a parameter is another one each time that it stands in a statement.
    .selectFrom((query) =>
      query
        .selectFrom("locations")
        .where("state", "in", ["pending", "retired", "deleting"])
        .select(["backend_id", "state", seconds.as("seconds")])
        .select(sql<number>`case when ${mayHaveBytes} then stored_bytes else 0 end`.as("stored_bytes"))
        .as("leaving"),
    )
    .select(({ fn }) => [
      "backend_id",
      "state",
      sql<boolean>`seconds = 0`.as("is_due"),
      fn.max("seconds").as("seconds"),
      fn.countAll<number>().as("locations"),
      sql<number>`coalesce(sum(stored_bytes), 0)::bigint`.as("bytes"),
    ])
    .groupBy(["backend_id", "state", sql`seconds = 0`])
    .orderBy("backend_id")
    .orderBy("state")
    .execute();
  return rows.map((row) => ({
    backendId: row.backend_id,
    state: row.state as Reclaimable["state"],
    isDue: row.is_due,
    dueInSeconds: row.seconds,
    locations: row.locations,
    bytes: row.bytes,
  }));
}
