import { sql } from "kysely";
import { type Database, type LocationState, sqlStateOf } from "../../db/index.ts";
import { mayHaveBytes } from "./locations.ts";

/** Locations that are alike. */
export interface KeptGroup {
  readonly backendId: number;
  readonly bucket: string;
  readonly account: string;
  readonly codec: string;
  readonly state: LocationState;
  /** How long ago it was written. */
  readonly age: "day" | "month" | "year" | "older";
  readonly objects: number;
  /** Length of the contents. */
  readonly contentBytes: number;
  /** What is stored for them. */
  readonly storedBytes: number;
}

export async function keptGroups(database: Database): Promise<readonly KeptGroup[]> {
  const age = sql<KeptGroup["age"]>`case
    when created_at > now() - interval '1 day' then 'day'
    when created_at > now() - interval '30 days' then 'month'
    when created_at > now() - interval '365 days' then 'year'
    else 'older' end`;
  const rows = await database.sql
    .selectFrom("locations")
    .select(({ fn }) => [
      "backend_id",
      "bucket",
      "account",
      sql<string>`coalesce(codec, 'not known yet')`.as("codec"),
      "state",
      age.as("age"),
      fn.countAll<number>().as("objects"),
      sql<number>`coalesce(sum(content_bytes), 0)::bigint`.as("content_bytes"),
      sql<number>`coalesce(sum(stored_bytes), 0)::bigint`.as("stored_bytes"),
    ])
    .where(mayHaveBytes)
    .groupBy(["backend_id", "bucket", "account", "codec", "state", age])
    .orderBy("backend_id")
    .orderBy("bucket")
    .orderBy("account")
    .orderBy("state")
    .orderBy("age")
    .execute();
  return rows.map((row) => ({
    backendId: row.backend_id,
    bucket: row.bucket,
    account: row.account,
    codec: row.codec,
    state: row.state,
    age: row.age,
    objects: row.objects,
    contentBytes: row.content_bytes,
    storedBytes: row.stored_bytes,
  }));
}

export interface TableSize {
  readonly name: string;
  /** As the statistics know it. */
  readonly rows: number;
  /** Rows that are deleted and not yet reusable space. */
  readonly deadRows: number;
  readonly tableBytes: number;
  readonly indexBytes: number;
  /** Long values, which PostgreSQL keeps beside the table. */
  readonly longValueBytes: number;
}

export interface DatabaseSize {
  readonly bytes: number;
  readonly tables: readonly TableSize[];
  /** Of the write-ahead log; left out where this user may not ask. */
  readonly logBytes?: number;
  /** Bytes of blobs that the db driver holds; the rest of its tables' size is overhead and space that is free for new ones. */
  readonly blobBytes: number;
}

const insufficientPrivilege = "42501";

export async function readDatabaseSize(database: Database): Promise<DatabaseSize> {
  const { rows: tables } = await sql<{
    name: string;
    rows: number;
    dead: number;
    table_bytes: number;
    index_bytes: number;
    long_bytes: number;
  }>`
    select c.relname as name, greatest(coalesce(s.n_live_tup, 0), 0) as rows, coalesce(s.n_dead_tup, 0) as dead,
      pg_relation_size(c.oid) as table_bytes, pg_indexes_size(c.oid) as index_bytes,
      pg_total_relation_size(c.oid) - pg_relation_size(c.oid) - pg_indexes_size(c.oid) as long_bytes
    from pg_class c left join pg_stat_user_tables s on s.relid = c.oid
    where c.relkind = 'r' and c.relnamespace = current_schema()::regnamespace
    order by pg_total_relation_size(c.oid) desc, c.relname`.execute(database.sql);
  const { rows: totals } = await sql<{ bytes: number; blob_bytes: number }>`
    select pg_database_size(current_database()) as bytes,
      (select coalesce(sum(bytes), 0)::bigint from object_blobs) as blob_bytes`.execute(database.sql);
  const log = await logBytes(database);
  return {
    bytes: totals[0]?.bytes ?? 0,
    blobBytes: totals[0]?.blob_bytes ?? 0,
    ...(log === undefined ? {} : { logBytes: log }),
    tables: tables.map((row) => ({
      name: row.name,
      rows: row.rows,
      deadRows: row.dead,
      tableBytes: row.table_bytes,
      indexBytes: row.index_bytes,
      longValueBytes: row.long_bytes,
    })),
  };
}

async function logBytes(database: Database): Promise<number | undefined> {
  try {
    const { rows } = await sql<{ bytes: number }>`
      select coalesce(sum(size), 0)::bigint as bytes from pg_ls_waldir()`.execute(database.sql);
    return rows[0]?.bytes;
  } catch (error) {
    if (sqlStateOf(error) === insufficientPrivilege) return undefined;
    throw error;
  }
}
