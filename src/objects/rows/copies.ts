import { sql } from "kysely";
import type { Database, Transaction } from "../../db/index.ts";
import type { PhysicalKey } from "../driver.ts";
import type { ObjectRef } from "../store.ts";
import type { Written } from "../written-body.ts";
import { type Located, locatedColumns, locatedOf } from "./locations.ts";

/** A place where a copy is to be, registered before its bytes. */
export interface IntendedCopy {
  readonly sourceLocationId: number;
  readonly locationId: number;
  readonly backendId: number;
  readonly physicalKey: PhysicalKey;
}

/**
 * Registers places for copies of what lies at live locations; held by the migration until it publishes or releases them. Sources that are not live any
 * more are left out.
 */
export async function insertCopies(
  tx: Transaction,
  migrationId: number,
  writer: string,
  copies: readonly Omit<IntendedCopy, "locationId">[],
): Promise<readonly IntendedCopy[]> {
  if (copies.length === 0) return [];
  const { rows } = await sql<{ source: number; id: number; backend: number; key: string }>`
    with wanted as (
      select * from unnest(
        ${copies.map((copy) => copy.sourceLocationId)}::bigint[],
        ${copies.map((copy) => copy.backendId)}::integer[],
        ${copies.map((copy) => copy.physicalKey)}::text[]) as wanted (source, backend, key)),
    made as (
      insert into locations
        (backend_id, physical_key, account, bucket, object_key, state, state_since, writer, lease_until, migration_id)
      select wanted.backend, wanted.key, account, bucket, object_key, 'pending', now(), ${writer}, now(), ${migrationId}
      from wanted join locations on locations.id = wanted.source and locations.state = 'live'
      returning id, physical_key)
    select wanted.source, made.id, wanted.backend, wanted.key from made join wanted on wanted.key = made.physical_key`.execute(
    tx.sql,
  );
  return rows.map(({ source, id, backend, key }) => ({
    sourceLocationId: source,
    locationId: id,
    backendId: backend,
    physicalKey: key as PhysicalKey,
  }));
}

export interface LocatedObject extends Located {
  readonly ref: ObjectRef;
}

/** Proven locations by their ids. */
export async function findLocated(
  database: Database,
  ids: readonly number[],
): Promise<ReadonlyMap<number, LocatedObject>> {
  if (ids.length === 0) return new Map();
  const rows = await database.sql
    .selectFrom("locations")
    .select(locatedColumns)
    .where(sql<boolean>`id = any(${ids}::bigint[])`)
    .where("stored_digest", "is not", null)
    .execute();
  return new Map(
    rows.map((row) => {
      const located = locatedOf(row);
      return [row.id, { ...located, ref: located.writtenFor }];
    }),
  );
}

/** Records what lies at copies that are still held. */
export async function recordCopies(
  tx: Transaction,
  copies: readonly { readonly locationId: number; readonly written: Written }[],
): Promise<void> {
  if (copies.length === 0) return;
  const written = copies.map((copy) => copy.written);
  await sql`
    update locations set codec = copied.codec, content_digest = copied.content_digest, content_bytes = copied.content_bytes,
      stored_digest = copied.stored_digest, stored_bytes = copied.stored_bytes, proven_at = now()
    from unnest(
      ${copies.map((copy) => copy.locationId)}::bigint[], ${written.map((each) => each.codec)}::text[],
      ${written.map((each) => each.contentDigest)}::text[], ${written.map((each) => each.contentBytes)}::bigint[],
      ${written.map((each) => each.storedDigest)}::text[], ${written.map((each) => each.storedBytes)}::bigint[])
      as copied (id, codec, content_digest, content_bytes, stored_digest, stored_bytes)
    where locations.id = copied.id and state = 'pending' and migration_id is not null`.execute(tx.sql);
}

/**
 * Lets objects lie at their copies, where their pointers still point at the sources; what they leave is retired, or kept. Returns the sources that were
 * left: the others have changed or gone meanwhile.
 */
export async function switchPointers(
  tx: Transaction,
  pairs: readonly { readonly sourceLocationId: number; readonly locationId: number }[],
  keepsSources: boolean,
): Promise<ReadonlySet<number>> {
  if (pairs.length === 0) return new Set();
  const sources = pairs.map((pair) => pair.sourceLocationId);
  const copies = pairs.map((pair) => pair.locationId);
  const { rows: moved } = await sql<{ source: number; copy: number }>`
    update objects set location_id = pair.copy
    from unnest(${sources}::bigint[], ${copies}::bigint[]) as pair (source, copy)
    where objects.location_id = pair.source
      and exists (
        select 1 from locations where id = pair.copy and state = 'pending' and migration_id is not null
        and stored_digest is not null)
    returning pair.source, pair.copy`.execute(tx.sql);
  if (moved.length === 0) return new Set();
  const { rows: live } = await sql`
    update locations set state = 'live', state_since = now(), lease_until = null, migration_id = null
    where id = any(${moved.map(({ copy }) => copy)}::bigint[]) and state = 'pending'
    returning id`.execute(tx.sql);
  const { rows: left } = await sql`
    update locations set state = ${keepsSources ? "kept" : "retired"}, state_since = clock_timestamp()
    where id = any(${moved.map(({ source }) => source)}::bigint[]) and state = 'live'
    returning id`.execute(tx.sql);
  if (live.length !== moved.length || left.length !== moved.length) {
    throw new TypeError("pointers were moved between locations that were not pending and live");
  }
  return new Set(moved.map(({ source }) => source));
}

/** Copies that nobody needs: the reaper takes them. */
export async function releaseCopies(tx: Transaction, ids: readonly number[]): Promise<void> {
  if (ids.length === 0) return;
  await sql`
    update locations set migration_id = null, lease_until = now()
    where id = any(${ids}::bigint[]) and state = 'pending'`.execute(tx.sql);
}

/** All copies that a migration holds: the reaper takes them. */
export async function releaseCopiesOf(tx: Transaction, migrationId: number): Promise<void> {
  await sql`
    update locations set migration_id = null, lease_until = now()
    where migration_id = ${migrationId} and state = 'pending'`.execute(tx.sql);
}

/** A place whose new objects go elsewhere. `*` is every bucket without a line of its own. */
export interface Redirect {
  readonly backendId: number;
  readonly bucket: string;
  readonly toBackendId: number;
}

/**
 * From now on, whoever would write there writes elsewhere; what led away from those places leads there no longer. Writers whose statement looked before
 * are waited for: once this is committed, their rows are there to be counted.
 */
export async function setRedirects(
  tx: Transaction,
  migrationId: number,
  redirects: readonly Redirect[],
): Promise<void> {
  await sql`lock table write_redirects in exclusive mode`.execute(tx.sql);
  for (const { backendId, bucket, toBackendId } of redirects) {
    const values = { to_backend_id: toBackendId, migration_id: migrationId };
    await tx.sql
      .insertInto("write_redirects")
      .values({ backend_id: backendId, bucket, ...values })
      .onConflict((conflict) => conflict.columns(["backend_id", "bucket"]).doUpdateSet(values))
      .execute();
  }
}

/** What is to receive objects must not send new ones away. */
export async function clearRedirectsFrom(tx: Transaction, backendIds: readonly number[]): Promise<void> {
  await tx.sql.deleteFrom("write_redirects").where("backend_id", "in", backendIds).execute();
}

export async function clearRedirectsOf(tx: Transaction, migrationId: number): Promise<void> {
  await tx.sql.deleteFrom("write_redirects").where("migration_id", "=", migrationId).execute();
}

/** Where what a configuration sends to these backends really goes. */
export async function readRedirects(database: Database, backendIds: readonly number[]): Promise<readonly Redirect[]> {
  const rows = await database.sql
    .selectFrom("write_redirects")
    .selectAll()
    .where("backend_id", "in", backendIds)
    .orderBy("backend_id")
    .orderBy("bucket")
    .execute();
  return rows.map((row) => ({ backendId: row.backend_id, bucket: row.bucket, toBackendId: row.to_backend_id }));
}

/** Writers at work at a backend on objects that would lie there: their leases hold, and nobody moves them. */
export async function countWriters(database: Database, backendId: number): Promise<number> {
  const { count } = await database.sql
    .selectFrom("locations")
    .where("backend_id", "=", backendId)
    .where("state", "=", "pending")
    .where("migration_id", "is", null)
    .where("lease_until", ">", sql<Date>`now()`)
    .select(({ fn }) => fn.countAll<number>().as("count"))
    .executeTakeFirstOrThrow();
  return count;
}
