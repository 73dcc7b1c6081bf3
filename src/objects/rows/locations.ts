import { sql } from "kysely";
import { type Database, type Transaction, unhurried } from "../../db/index.ts";
import { parseCodec } from "../codec.ts";
import type { PhysicalKey } from "../driver.ts";
import type { ObjectRef, ObjectVersion } from "../store.ts";
import type { Recorded } from "../verified-body.ts";
import type { Written } from "../written-body.ts";

/**
 * Registers a place for a body, before its bytes. An online migration may have ordered that what goes to this backend goes to another: then that one
 * is returned. Where the bytes go into this database too, nobody waits until the intent is durable: the log keeps its order, so they can't be durable
 * without it.
 */
export async function insertPending(
  database: Database,
  location: {
    readonly backendId: number;
    readonly physicalKey: PhysicalKey;
    readonly ref: ObjectRef;
    readonly writer: string;
  },
  ownBackendId: number | undefined,
  leaseSeconds: number,
): Promise<{ readonly id: number; readonly backendId: number }> {
  const { backendId, physicalKey, ref, writer } = location;
  const { rows } = await sql<{ id: number; backend_id: number }>`
    with target as (
      select coalesce((
        select to_backend_id from write_redirects where backend_id = ${backendId} and bucket in (${ref.bucket}, '*')
        order by bucket = '*' limit 1), ${backendId}::integer) as id),
    unhurried as (select ${unhurried} from target where id = ${ownBackendId ?? null}::integer)
    insert into locations (backend_id, physical_key, account, bucket, object_key, state, state_since, writer, lease_until)
    select target.id, ${physicalKey}, ${ref.account}, ${ref.bucket}, ${ref.key}, 'pending', now(), ${writer}, ${inSeconds(leaseSeconds)}
    from target left join unhurried on true
    returning id, backend_id`.execute(database.sql);
  const row = rows[0];
  if (row === undefined) throw new TypeError("a location was not inserted");
  return { id: row.id, backendId: row.backend_id };
}

/** Renews the lease; false when the location is no longer pending. */
export async function renewLease(database: Database, id: number, leaseSeconds: number): Promise<boolean> {
  const result = await database.sql
    .updateTable("locations")
    .set({ lease_until: inSeconds(leaseSeconds) })
    .where("id", "=", id)
    .where("state", "=", "pending")
    .executeTakeFirst();
  return result.numUpdatedRows > 0n;
}

/**
 * Records what was proven to lie there; false when the location is no longer pending. The server does not wait until that is durable: losing it leaves
 * a location that was never proven, and publishing it, which needs it, makes it durable before itself.
 */
export async function recordProof(
  database: Database,
  id: number,
  proof: Written,
  leaseSeconds: number,
): Promise<boolean> {
  const { contentDigest, contentBytes, storedDigest, storedBytes, codec } = proof;
  const { rows } = await sql`
    update locations
    set content_digest = ${contentDigest}, content_bytes = ${contentBytes}, stored_digest = ${storedDigest},
      stored_bytes = ${storedBytes}, codec = ${codec}, proven_at = now(), lease_until = ${inSeconds(leaseSeconds)}
    from (select ${unhurried}) as unhurried
    where id = ${id} and state = 'pending'
    returning id`.execute(database.sql);
  return rows.length > 0;
}

const isPublishable = sql<boolean>`(state = 'pending' and stored_digest is not null and lease_until > now())`;

/** `pending` → `live`, if the lease still holds and the bytes are proven; false otherwise. */
export async function makeLive(tx: Transaction, id: number): Promise<boolean> {
  const result = await tx.sql
    .updateTable("locations")
    .set({ state: "live", state_since: sql<string>`now()`, lease_until: null })
    .where("id", "=", id)
    .where(isPublishable)
    .executeTakeFirst();
  return result.numUpdatedRows > 0n;
}

/**
 * Makes a location live, points its object at it and retires the one it pointed at. Returns the new version; nothing when the lease is over or the bytes
 * were never proven.
 */
export async function publishLocation(
  tx: Transaction,
  { account, bucket, key }: ObjectRef,
  locationId: number,
): Promise<number | undefined> {
  // Most objects are new: then this is all, in one journey to the server.
  const { rows } = await sql<{ live: number; version: number | null }>`
    with live as (
      update locations set state = 'live', state_since = now(), lease_until = null
      where id = ${locationId} and ${isPublishable} returning id),
    made as (
      insert into objects (account, bucket, key, location_id, version)
      select ${account}, ${bucket}, ${key}, id, 1 from live on conflict (account, bucket, key) do nothing returning version)
    select (select count(*) from live) as live, (select version from made) as version`.execute(tx.sql);
  const { live, version } = rows[0] ?? { live: 0, version: null };
  if (live === 0) return undefined;
  return version ?? (await movePointer(tx, { account, bucket, key }, locationId));
}

async function movePointer(tx: Transaction, { account, bucket, key }: ObjectRef, locationId: number): Promise<number> {
  for (;;) {
    // The locked row, so that what is retired is what the pointer leaves, whoever moved it since this statement began.
    const { rows } = await sql<{ version: number; before: number }>`
      update objects set location_id = ${locationId}, version = version + 1, updated_at = now()
      from (
        select location_id as before from objects
        where account = ${account} and bucket = ${bucket} and key = ${key} for update) as present
      where account = ${account} and bucket = ${bucket} and key = ${key}
      returning version, before`.execute(tx.sql);
    if (rows[0] !== undefined) {
      await retireLocation(tx, rows[0].before);
      return rows[0].version;
    }
    const inserted = await tx.sql
      .insertInto("objects")
      .values({ account, bucket, key, location_id: locationId, version: 1 })
      .onConflict((conflict) => conflict.columns(["account", "bucket", "key"]).doNothing())
      .returning("version")
      .executeTakeFirst();
    // Another transaction has removed it meanwhile, or created it again: look again.
    if (inserted) return inserted.version;
  }
}

/** Points the object from one location of its version to another of the same content; false when it points elsewhere by now. */
export async function switchPointer(
  tx: Transaction,
  { account, bucket, key }: ObjectRef,
  from: number,
  to: number,
): Promise<boolean> {
  const result = await tx.sql
    .updateTable("objects")
    .set({ location_id: to })
    .where("account", "=", account)
    .where("bucket", "=", bucket)
    .where("key", "=", key)
    .where("location_id", "=", from)
    .executeTakeFirst();
  if (result.numUpdatedRows !== 1n) return false;
  await retireLocation(tx, from);
  return true;
}

/** Removes the pointer and retires its location; false when there is none. */
export async function removePointer(tx: Transaction, { account, bucket, key }: ObjectRef): Promise<boolean> {
  const removed = await tx.sql
    .deleteFrom("objects")
    .where("account", "=", account)
    .where("bucket", "=", bucket)
    .where("key", "=", key)
    .returning("location_id")
    .executeTakeFirst();
  if (!removed) return false;
  await retireLocation(tx, removed.location_id);
  return true;
}

async function retireLocation(tx: Transaction, id: number): Promise<void> {
  const result = await tx.sql
    .updateTable("locations")
    // Not the transaction's time: the grace period of readers would be shorter by all that the transaction did before.
    .set({ state: "retired", state_since: sql<string>`clock_timestamp()` })
    .where("id", "=", id)
    .where("state", "=", "live")
    .executeTakeFirst();
  if (result.numUpdatedRows !== 1n) throw new TypeError(`location ${id} had a pointer and was not live`);
}

export const locatedColumns = [
  "locations.id",
  "backend_id",
  "physical_key",
  "codec",
  "content_digest",
  "content_bytes",
  "stored_digest",
  "stored_bytes",
  "damage",
] as const;

interface LocatedRow {
  readonly id: number;
  readonly backend_id: number;
  readonly physical_key: string;
  readonly codec: string | null;
  readonly content_digest: string | null;
  readonly content_bytes: number | null;
  readonly stored_digest: string | null;
  readonly stored_bytes: number | null;
  readonly damage: string | null;
}

/** A place where bytes lie, with what was recorded of them. */
export interface Located extends Recorded {
  readonly locationId: number;
  readonly backendId: number;
  readonly physicalKey: PhysicalKey;
  /** What was found wrong with it. */
  readonly damage: string | undefined;
}

export function locatedOf(row: LocatedRow): Located {
  const { codec, content_digest, content_bytes, stored_digest, stored_bytes } = row;
  if (
    codec === null ||
    content_digest === null ||
    content_bytes === null ||
    stored_digest === null ||
    stored_bytes === null
  ) {
    throw new TypeError(`location ${row.id} has no digests`);
  }
  return {
    locationId: row.id,
    backendId: row.backend_id,
    physicalKey: row.physical_key as PhysicalKey,
    codec: parseCodec(codec),
    contentDigest: content_digest,
    contentBytes: content_bytes,
    storedDigest: stored_digest,
    storedBytes: stored_bytes,
    damage: row.damage ?? undefined,
  };
}

/** The visible version of an object and where it lies. */
export async function findVersion(
  queries: Database["sql"] | Transaction["sql"],
  ref: ObjectRef,
): Promise<(ObjectVersion & Located) | undefined> {
  const row = await queries
    .selectFrom("objects")
    .innerJoin("locations", "locations.id", "objects.location_id")
    .where("objects.account", "=", ref.account)
    .where("objects.bucket", "=", ref.bucket)
    .where("objects.key", "=", ref.key)
    .select(["objects.version", ...locatedColumns])
    .executeTakeFirst();
  return row && { ref, version: row.version, ...locatedOf(row) };
}

/** Other places where the same content of the object still lies. */
export async function findCopies(database: Database, version: ObjectVersion): Promise<readonly Located[]> {
  const { ref } = version;
  const rows = await database.sql
    .selectFrom("locations")
    .where("account", "=", ref.account)
    .where("bucket", "=", ref.bucket)
    .where("object_key", "=", ref.key)
    .where("state", "in", ["live", "retired", "kept"])
    .where("content_digest", "=", version.contentDigest)
    .where("locations.id", "<>", version.locationId)
    .where("damage", "is", null)
    .select(locatedColumns)
    .orderBy("locations.id", "desc")
    .limit(10)
    .execute();
  return rows.map(locatedOf);
}

/** What was wrong with the bytes at a location when they were read twice. */
export async function recordDamage(database: Database, id: number, damage: string | null): Promise<void> {
  await database.sql.updateTable("locations").set({ damage }).where("id", "=", id).execute();
}

function inSeconds(seconds: number) {
  return sql<string>`now() + make_interval(secs => ${seconds})`;
}
