import { sql } from "kysely";
import { type Database, sqlStateOf } from "../../db/index.ts";
import { StowageError } from "../../errors/index.ts";
import { type Call, throwIfAborted } from "../../runtime/index.ts";

export interface CompactionReport {
  /** Largest before, first. */
  readonly tables: readonly { readonly name: string; readonly bytesBefore: number; readonly bytesAfter: number }[];
  readonly bytesBefore: number;
  readonly bytesAfter: number;
}

/** Those whose rows come and go with objects. */
const tables = ["object_chunks", "object_blobs", "locations", "objects", "scrubs", "scrub_findings"] as const;

const lockNotAvailable = "55P03";

/** Writes the tables of objects anew, without the space that is free in them. Each is locked meanwhile, and needs room for its new form beside the old one. */
export async function compact(database: Database, call: Call): Promise<CompactionReport> {
  const before = await sizes(database);
  await database.sql.connection().execute(async (connection) => {
    const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(connection);
    // The statement runs as long as it runs, unless another connection ends it; the table is then as it was.
    const cancel = () => {
      sql`select pg_cancel_backend(${rows[0]?.pid})`.execute(database.sql).catch((error: unknown) => {
        call.log.warn({ err: error }, "compaction not cancelled");
      });
    };
    call.signal.addEventListener("abort", cancel, { once: true });
    try {
      for (const table of tables) {
        throwIfAborted(call);
        await sql`vacuum (full, analyze) ${sql.table(table)}`.execute(connection);
      }
    } catch (error) {
      throwIfAborted(call);
      if (sqlStateOf(error) !== lockNotAvailable) throw error;
      throw new StowageError(
        "DB_FAILED",
        { reason: "a table of objects is in use" },
        { cause: error, hint: "nothing is lost; run it again when no other stowage is at work" },
      );
    } finally {
      call.signal.removeEventListener("abort", cancel);
    }
  });
  const after = await sizes(database);
  const each = [...before]
    .map(([name, bytesBefore]) => ({ name, bytesBefore, bytesAfter: after.get(name) ?? 0 }))
    .toSorted((one, other) => other.bytesBefore - one.bytesBefore);
  return {
    tables: each,
    bytesBefore: each.reduce((sum, { bytesBefore }) => sum + bytesBefore, 0),
    bytesAfter: each.reduce((sum, { bytesAfter }) => sum + bytesAfter, 0),
  };
}

/** With indexes and long values. */
async function sizes(database: Database): Promise<ReadonlyMap<string, number>> {
  const { rows } = await sql<{ name: string; bytes: number }>`
    select name, pg_total_relation_size(name::regclass) as bytes from unnest(${[...tables]}::text[]) as t (name)`.execute(
    database.sql,
  );
  return new Map(rows.map(({ name, bytes }) => [name, bytes]));
}
