import { type RawBuilder, sql } from "kysely";
import { type Database, type Transaction, unhurried } from "../../db/index.ts";
import { parseCodec } from "../codec.ts";
import type { PhysicalKey } from "../driver.ts";
import type { ObjectRef, ObjectVersion } from "../store.ts";
import type { Identified } from "../verified-body.ts";
import type { Written } from "../written-body.ts";

/** A place for a body, registered before its bytes. */
export interface IntendedLocation {
  readonly backendId: number;
  readonly physicalKey: PhysicalKey;
  readonly ref: ObjectRef;
  readonly writer: string;
}

/**
 * Registers places for bodies, before their bytes. An online migration may have ordered that what goes to one backend goes to another: then that one is
 * returned; its order waits for statements like this (`for key share` locks the table, though it may have no row). Where all the bytes go into this database too, nobody waits until the intents are durable: the log keeps its order, so the bytes can't be
 * durable without them.
 */
export async function insertPending(
  database: Database,
  wanted: readonly IntendedLocation[],
  ownBackendId: number | undefined,
  leaseSeconds: number,
): Promise<readonly { readonly id: number; readonly backendId: number }[]> {
  const { rows } = await sql<{ id: number; backend_id: number; physical_key: string }>`
    with wanted as materialized (
      select physical_key, account, bucket, object_key, writer, coalesce((
        select to_backend_id from write_redirects
        where write_redirects.backend_id = wanted.backend_id and write_redirects.bucket in (wanted.bucket, '*')
        order by write_redirects.bucket = '*' limit 1 for key share), backend_id) as backend_id
      from unnest(
        ${wanted.map((each) => each.backendId)}::integer[], ${wanted.map((each) => each.physicalKey)}::text[],
        ${wanted.map(({ ref }) => ref.account)}::text[], ${wanted.map(({ ref }) => ref.bucket)}::text[],
        ${wanted.map(({ ref }) => ref.key)}::text[], ${wanted.map((each) => each.writer)}::text[])
        as wanted (backend_id, physical_key, account, bucket, object_key, writer)),
    unhurried as (
      select ${unhurried}
      where not exists (select from wanted where backend_id is distinct from ${ownBackendId ?? null}::integer))
    insert into locations (backend_id, physical_key, account, bucket, object_key, state, state_since, writer, lease_until)
    select backend_id, physical_key, account, bucket, object_key, 'pending', now(), writer, ${inSeconds(leaseSeconds)}
    from wanted left join unhurried on true
    returning id, backend_id, physical_key`.execute(database.sql);
  const inserted = new Map(rows.map((row) => [row.physical_key, { id: row.id, backendId: row.backend_id }]));
  return wanted.map(({ physicalKey }) => {
    const location = inserted.get(physicalKey);
    if (location === undefined) throw new TypeError("a location was not inserted");
    return location;
  });
}

/** Renews leases; returns those of locations that are still pending. */
export async function renewLeases(
  database: Database,
  ids: readonly number[],
  leaseSeconds: number,
): Promise<readonly number[]> {
  const { rows } = await sql<{ id: number }>`
    update locations set lease_until = ${inSeconds(leaseSeconds)}
    where id = any(${ids}::bigint[]) and state = 'pending' returning id`.execute(database.sql);
  return rows.map(({ id }) => id);
}

/** What was proven to lie at a location. */
export interface Proof extends Written {
  readonly locationId: number;
}

/**
 * Records what was proven to lie at locations; returns those that are still pending, with their leases renewed. The server does not wait until that is
 * durable: losing it leaves a location that was never proven, and publishing it, which needs it, makes it durable before itself.
 */
export async function recordProofs(
  database: Database,
  proofs: readonly Proof[],
  leaseSeconds: number,
): Promise<ReadonlySet<number>> {
  const { rows } = await sql<{ id: number }>`
    update locations
    set content_digest = proof.content_digest, content_bytes = proof.content_bytes, stored_digest = proof.stored_digest,
      stored_bytes = proof.stored_bytes, codec = proof.codec, proven_at = now(), lease_until = ${inSeconds(leaseSeconds)}
    from (select ${unhurried}) as unhurried, unnest(
      ${proofs.map((proof) => proof.locationId)}::bigint[], ${proofs.map((proof) => proof.codec)}::text[],
      ${proofs.map((proof) => proof.contentDigest)}::text[], ${proofs.map((proof) => proof.contentBytes)}::bigint[],
      ${proofs.map((proof) => proof.storedDigest)}::text[], ${proofs.map((proof) => proof.storedBytes)}::bigint[])
      as proof (id, codec, content_digest, content_bytes, stored_digest, stored_bytes)
    where locations.id = proof.id and state = 'pending'
    returning locations.id`.execute(database.sql);
  return new Set(rows.map(({ id }) => id));
}

/** Numbers for locations that are not there yet; those that are not used are nobody's. */
export async function reserveLocationIds(database: Database, count: number): Promise<readonly number[]> {
  const { rows } = await sql<{ id: number }>`
    select nextval(pg_get_serial_sequence('locations', 'id')) as id from generate_series(1, ${count}::integer)`.execute(
    database.sql,
  );
  return rows.map(({ id }) => id);
}

/** A place whose bytes come with its row. */
export type ProvenLocation = Omit<IntendedLocation, "backendId"> & Proof;

/**
 * Registers places, and with them, in one statement, the bytes that lie there and the proof of these. Returns those that are there: not what arrived
 * damaged, and nothing at all while an online migration sends some of it elsewhere. Nobody waits until that is durable: publishing makes it so.
 * @param puts the expressions of {@link StatementPuts}
 */
export async function insertProven(
  database: Database,
  backendId: number,
  wanted: readonly ProvenLocation[],
  puts: RawBuilder<unknown>,
  leaseSeconds: number,
): Promise<ReadonlySet<number>> {
  const { rows } = await sql<{ id: number }>`
    with permit as materialized (
      select ${unhurried} where not exists (
        select from write_redirects where backend_id = ${backendId}
        and bucket = any(${[...new Set(wanted.map(({ ref }) => ref.bucket)), "*"]}::text[]) for key share)),
    ${puts}
    insert into locations (
      id, backend_id, physical_key, account, bucket, object_key, state, state_since, writer, lease_until,
      codec, content_digest, content_bytes, stored_digest, stored_bytes, proven_at)
    overriding system value
    select wanted.id, ${backendId}::integer, physical_key, account, bucket, object_key, 'pending', now(), writer,
      ${inSeconds(leaseSeconds)}, codec, content_digest, content_bytes, stored_digest, stored_bytes, now()
    from unnest(
      ${wanted.map((each) => each.locationId)}::bigint[], ${wanted.map((each) => each.physicalKey)}::text[],
      ${wanted.map(({ ref }) => ref.account)}::text[], ${wanted.map(({ ref }) => ref.bucket)}::text[],
      ${wanted.map(({ ref }) => ref.key)}::text[], ${wanted.map((each) => each.writer)}::text[],
      ${wanted.map((each) => each.codec)}::text[], ${wanted.map((each) => each.contentDigest)}::text[],
      ${wanted.map((each) => each.contentBytes)}::bigint[], ${wanted.map((each) => each.storedDigest)}::text[],
      ${wanted.map((each) => each.storedBytes)}::bigint[])
      as wanted (id, physical_key, account, bucket, object_key, writer,
        codec, content_digest, content_bytes, stored_digest, stored_bytes)
    join stored using (physical_key)
    returning id`.execute(database.sql);
  return new Set(rows.map(({ id }) => id));
}

/** Not those whose bytes are gone already, which only remember to be deleted once more. */
export const mayHaveBytes = sql<boolean>`(state <> 'deleting' or writer is not null)`;

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
      await retireVersion(tx, rows[0].before);
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
  await retireVersion(tx, removed.location_id);
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
  if (result.numUpdatedRows !== 1n) throw new TypeError(wasNotLive(id));
}

/** A version that is no more leaves its location, and those where migrations that were to delete nothing have kept it: nobody could find them again. */
async function retireVersion(tx: Transaction, id: number): Promise<void> {
  const { rows } = await sql`
    with version as (
      update locations set state = 'retired', state_since = clock_timestamp() where id = ${id} and state = 'live'
      returning account, bucket, object_key),
    copies as (
      update locations set state = 'retired', state_since = clock_timestamp()
      from version where locations.account = version.account and locations.bucket = version.bucket
      and locations.object_key = version.object_key and locations.state = 'kept')
    select from version`.execute(tx.sql);
  if (rows.length !== 1) throw new TypeError(wasNotLive(id));
}

function wasNotLive(id: number): string {
  return `location ${id} had a pointer and was not live`;
}

export const locatedColumns = [
  "locations.id",
  "locations.account",
  "locations.bucket",
  "object_key",
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
  readonly account: string;
  readonly bucket: string;
  readonly object_key: string;
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
export interface Located extends Identified {
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
    writtenFor: { account: row.account, bucket: row.bucket, key: row.object_key },
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

/** The visible versions of objects and where they lie, in the order of the names. */
export async function findVersions(
  queries: Database["sql"] | Transaction["sql"],
  refs: readonly ObjectRef[],
): Promise<readonly ((ObjectVersion & Located) | undefined)[]> {
  const { rows } = await sql<LocatedRow & { readonly version: number; readonly index: number }>`
    select wanted.index::integer, objects.version, ${sql.join(locatedColumns.map((column) => sql.ref(column)))}
    from unnest(
      ${refs.map((ref) => ref.account)}::text[], ${refs.map((ref) => ref.bucket)}::text[], ${refs.map((ref) => ref.key)}::text[])
      with ordinality as wanted (account, bucket, key, index)
    join objects on objects.account = wanted.account and objects.bucket = wanted.bucket and objects.key = wanted.key
    join locations on locations.id = objects.location_id`.execute(queries);
  const found = new Map(rows.map((row) => [row.index - 1, row]));
  return refs.map((ref, index) => {
    const row = found.get(index);
    return row && { ref, version: row.version, ...locatedOf(row) };
  });
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
