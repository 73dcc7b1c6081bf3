import { sql } from "kysely";
import type { Database, LocationState } from "../../db/index.ts";
import { type Call, throwIfAborted } from "../../runtime/index.ts";
import type { PhysicalKey } from "../driver.ts";
import type { ObjectRef } from "../store.ts";
import { type Located, locatedColumns, locatedOf } from "./locations.ts";

/** A location, whatever its state. */
export interface PlacedRow {
  readonly id: number;
  readonly physicalKey: PhysicalKey;
  readonly state: LocationState;
  readonly ref: ObjectRef;
  /** What was recorded once it was proven. */
  readonly located: Located | undefined;
}

const pageSize = 2000;

const columns = [...locatedColumns, "state"] as const;

/** All locations at a backend after a key, in the order of their keys (bytes). */
export async function* placedAfter(
  database: Database,
  backendId: number,
  after: string,
  call: Call,
): AsyncGenerator<PlacedRow> {
  let last = after;
  for (;;) {
    throwIfAborted(call);
    const rows = await database.sql
      .selectFrom("locations")
      .select(columns)
      .where("backend_id", "=", backendId)
      .where("physical_key", ">", last)
      .orderBy("physical_key")
      .limit(pageSize)
      .execute();
    yield* rows.map(placedOf);
    if (rows.length < pageSize) return;
    last = (rows.at(-1) as { physical_key: string }).physical_key;
  }
}

export async function findPlaced(
  database: Database,
  backendId: number,
  key: PhysicalKey,
): Promise<PlacedRow | undefined> {
  const row = await database.sql
    .selectFrom("locations")
    .select(columns)
    .where("backend_id", "=", backendId)
    .where("physical_key", "=", key)
    .executeTakeFirst();
  return row && placedOf(row);
}

/** The objects whose bytes lie at these locations, by what is visible. */
export async function findPointers(
  database: Database,
  ids: readonly number[],
): Promise<ReadonlyMap<number, ObjectRef>> {
  const rows = await database.sql
    .selectFrom("objects")
    .select(["location_id", "account", "bucket", "key"])
    .where(sql<boolean>`location_id = any(${ids}::bigint[])`)
    .execute();
  return new Map(rows.map(({ location_id, ...ref }) => [location_id, ref]));
}

function placedOf(row: Parameters<typeof locatedOf>[0] & { readonly state: LocationState }): PlacedRow {
  return {
    id: row.id,
    physicalKey: row.physical_key as PhysicalKey,
    state: row.state,
    ref: { account: row.account, bucket: row.bucket, key: row.object_key },
    located: row.stored_digest === null ? undefined : locatedOf(row),
  };
}
