import { sql } from "kysely";
import type { Database, ScrubFindingsTable } from "../../db/index.ts";
import type { PhysicalKey } from "../driver.ts";

export interface ScrubRow {
  readonly id: number;
  readonly startedAt: Date;
  /** Of the locations, from 0 to 1. */
  readonly share: number;
  readonly seed: number;
  /** Where it has come to. */
  readonly backendId: number | undefined;
  readonly afterKey: string;
  readonly objects: number;
  readonly bytes: number;
}

export type FindingKind = ScrubFindingsTable["kind"];

export interface ScrubFinding {
  readonly backendId: number;
  /** Its name there: of what is extra, not always a physical key. */
  readonly physicalKey: string;
  readonly kind: FindingKind;
  /** What it is, and what is wrong with it. */
  readonly detail: string;
  readonly bytes: number | undefined;
}

const columns = ["id", "started_at", "share", "seed", "backend_id", "after_key", "objects", "bytes"] as const;

export async function findUnfinishedScrub(database: Database): Promise<ScrubRow | undefined> {
  const row = await database.sql.selectFrom("scrubs").select(columns).where("ended_at", "is", null).executeTakeFirst();
  return row && rowOf(row);
}

/** Nothing when there is an unfinished one. */
export async function beginScrub(database: Database, share: number, seed: number): Promise<ScrubRow | undefined> {
  const row = await database.sql
    .insertInto("scrubs")
    .values({ share, seed })
    .onConflict((conflict) => conflict.doNothing())
    .returning(columns)
    .executeTakeFirst();
  return row && rowOf(row);
}

export async function recordScrubProgress(
  database: Database,
  id: number,
  at: { readonly backendId: number; readonly afterKey: string; readonly objects: number; readonly bytes: number },
): Promise<void> {
  await database.sql
    .updateTable("scrubs")
    .set({ backend_id: at.backendId, after_key: at.afterKey, objects: at.objects, bytes: at.bytes })
    .where("id", "=", id)
    .execute();
}

export async function endScrub(database: Database, id: number): Promise<void> {
  await database.sql
    .updateTable("scrubs")
    .set({ ended_at: sql<string>`now()` })
    .where("id", "=", id)
    .where("ended_at", "is", null)
    .execute();
}

export async function recordFinding(database: Database, scrubId: number, finding: ScrubFinding): Promise<void> {
  const { backendId, physicalKey, kind, detail, bytes } = finding;
  const values = { kind, detail, bytes: bytes ?? null };
  await database.sql
    .insertInto("scrub_findings")
    .values({ scrub_id: scrubId, backend_id: backendId, physical_key: physicalKey, ...values })
    .onConflict((conflict) => conflict.columns(["scrub_id", "backend_id", "physical_key"]).doUpdateSet(values))
    .execute();
}

/** At most `limit` of them, and how many there are of each kind. */
export async function readFindings(
  database: Database,
  scrubId: number,
  limit: number,
): Promise<{ readonly findings: readonly ScrubFinding[]; readonly counts: Readonly<Record<string, number>> }> {
  const rows = await database.sql
    .selectFrom("scrub_findings")
    .selectAll()
    .where("scrub_id", "=", scrubId)
    .orderBy("backend_id")
    .orderBy("physical_key")
    .limit(limit)
    .execute();
  const counted = await database.sql
    .selectFrom("scrub_findings")
    .where("scrub_id", "=", scrubId)
    .select(({ fn }) => ["kind", fn.countAll<number>().as("count")])
    .groupBy("kind")
    .orderBy("kind")
    .execute();
  return {
    findings: rows.map((row) => ({
      backendId: row.backend_id,
      physicalKey: row.physical_key,
      kind: row.kind,
      detail: row.detail,
      bytes: row.bytes ?? undefined,
    })),
    counts: Object.fromEntries(counted.map(({ kind, count }) => [kind, count])),
  };
}

/** These were read through and are right. */
export async function recordChecked(database: Database, ids: readonly number[]): Promise<void> {
  if (ids.length === 0) return;
  await database.sql
    .updateTable("locations")
    .set({ checked_at: sql<string>`now()`, damage: null })
    .where("id", "in", ids)
    .execute();
}

/** Live objects at a backend that were found damaged before a key, by whomever. */
export async function damagedUpTo(database: Database, backendId: number, key: string): Promise<readonly PhysicalKey[]> {
  const rows = await database.sql
    .selectFrom("locations")
    .select("physical_key")
    .where("damage", "is not", null)
    .where("state", "=", "live")
    .where("backend_id", "=", backendId)
    .where("physical_key", "<=", key)
    .orderBy("physical_key")
    .execute();
  return rows.map((row) => row.physical_key as PhysicalKey);
}

/** How many live objects are damaged, whoever noticed. */
export async function countDamaged(database: Database): Promise<number> {
  const { count } = await database.sql
    .selectFrom("locations")
    .where("damage", "is not", null)
    .where("state", "=", "live")
    .select(({ fn }) => fn.countAll<number>().as("count"))
    .executeTakeFirstOrThrow();
  return count;
}

/** How many live objects a scrub could not read, beside those that are damaged. */
export async function countUnreadable(database: Database, scrubId: number): Promise<number> {
  const { count } = await database.sql
    .selectFrom("scrub_findings")
    .innerJoin("locations", (join) =>
      join
        .onRef("locations.backend_id", "=", "scrub_findings.backend_id")
        .onRef("locations.physical_key", "=", "scrub_findings.physical_key"),
    )
    .where("scrub_id", "=", scrubId)
    .where("kind", "=", "unreadable")
    .where("state", "=", "live")
    .where("damage", "is", null)
    .select(({ fn }) => fn.countAll<number>().as("count"))
    .executeTakeFirstOrThrow();
  return count;
}

/** What is to be read in all, for progress. */
export async function scrubTotal(database: Database): Promise<{ readonly objects: number; readonly bytes: number }> {
  return await database.sql
    .selectFrom("locations")
    .where("state", "in", ["live", "retired", "kept"])
    .select(({ fn }) => [
      fn.countAll<number>().as("objects"),
      sql<number>`coalesce(sum(stored_bytes), 0)::bigint`.as("bytes"),
    ])
    .executeTakeFirstOrThrow();
}

function rowOf(row: {
  readonly id: number;
  readonly started_at: Date;
  readonly share: number;
  readonly seed: number;
  readonly backend_id: number | null;
  readonly after_key: string;
  readonly objects: number;
  readonly bytes: number;
}): ScrubRow {
  return {
    id: row.id,
    startedAt: row.started_at,
    share: row.share,
    seed: row.seed,
    backendId: row.backend_id ?? undefined,
    afterKey: row.after_key,
    objects: row.objects,
    bytes: row.bytes,
  };
}
