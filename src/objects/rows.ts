import { sql } from "kysely";
import type { Database, Transaction } from "../db/index.ts";
import type { PhysicalKey } from "./driver.ts";
import type { ObjectRef, ObjectVersion } from "./store.ts";

/** A location as far as reading and deleting need it. */
export interface LocationRow {
  readonly id: number;
  readonly physicalKey: PhysicalKey;
  readonly storedBytes: number;
  /** Its bytes were proven once, so no writer is at work on them any more. */
  readonly isProven: boolean;
}

export interface Proof {
  readonly contentDigest: string;
  readonly contentBytes: number;
  readonly storedDigest: string;
  readonly storedBytes: number;
}

/** The row of a backend, registered on first use. `settings` have no secrets. */
export async function registerBackend(
  database: Database,
  driver: string,
  settings: Readonly<Record<string, unknown>>,
): Promise<number> {
  const values = { driver, settings: JSON.stringify(settings) };
  const find = () =>
    database.sql
      .selectFrom("backends")
      .select("id")
      .where("driver", "=", driver)
      .where("settings", "=", sql<Record<string, unknown>>`${values.settings}::jsonb`)
      .executeTakeFirst();
  const known = await find();
  if (known) return known.id;
  await database.sql
    .insertInto("backends")
    .values(values)
    .onConflict((conflict) => conflict.columns(["driver", "settings"]).doNothing())
    .execute();
  const { id } = (await find()) ?? {};
  if (id === undefined) throw new TypeError("a backend's row vanished");
  return id;
}

export async function insertPending(
  database: Database,
  location: {
    readonly backendId: number;
    readonly physicalKey: PhysicalKey;
    readonly ref: ObjectRef;
    readonly writer: string;
    readonly codec: string;
  },
  leaseSeconds: number,
): Promise<number> {
  const { backendId, physicalKey, ref, writer, codec } = location;
  const { id } = await database.sql
    .insertInto("locations")
    .values({
      backend_id: backendId,
      physical_key: physicalKey,
      account: ref.account,
      bucket: ref.bucket,
      object_key: ref.key,
      state: "pending",
      state_since: sql<string>`now()`,
      writer,
      lease_until: inSeconds(leaseSeconds),
      codec,
    })
    .returning("id")
    .executeTakeFirstOrThrow();
  return id;
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

/** Records what was proven to lie there; false when the location is no longer pending. */
export async function recordProof(
  database: Database,
  id: number,
  proof: Proof,
  leaseSeconds: number,
): Promise<boolean> {
  const result = await database.sql
    .updateTable("locations")
    .set({
      content_digest: proof.contentDigest,
      content_bytes: proof.contentBytes,
      stored_digest: proof.storedDigest,
      stored_bytes: proof.storedBytes,
      lease_until: inSeconds(leaseSeconds),
    })
    .where("id", "=", id)
    .where("state", "=", "pending")
    .executeTakeFirst();
  return result.numUpdatedRows > 0n;
}

/** `pending` → `live`, if the lease still holds and the bytes are proven; false otherwise. */
export async function makeLive(tx: Transaction, id: number): Promise<boolean> {
  const result = await tx.sql
    .updateTable("locations")
    .set({ state: "live", state_since: sql<string>`now()`, lease_until: null })
    .where("id", "=", id)
    .where("state", "=", "pending")
    .where("stored_digest", "is not", null)
    .where("lease_until", ">", sql<Date>`now()`)
    .executeTakeFirst();
  return result.numUpdatedRows > 0n;
}

/** Points the object at a location and retires the one it pointed at. Returns the new version. */
export async function movePointer(
  tx: Transaction,
  { account, bucket, key }: ObjectRef,
  locationId: number,
): Promise<number> {
  for (;;) {
    const present = await tx.sql
      .selectFrom("objects")
      .select(["location_id", "version"])
      .where("account", "=", account)
      .where("bucket", "=", bucket)
      .where("key", "=", key)
      .forUpdate()
      .executeTakeFirst();
    if (present) {
      const version = present.version + 1;
      await tx.sql
        .updateTable("objects")
        .set({ location_id: locationId, version, updated_at: sql<string>`now()` })
        .where("account", "=", account)
        .where("bucket", "=", bucket)
        .where("key", "=", key)
        .execute();
      await retireLocation(tx, present.location_id);
      return version;
    }
    const inserted = await tx.sql
      .insertInto("objects")
      .values({ account, bucket, key, location_id: locationId, version: 1, updated_at: sql<string>`now()` })
      .onConflict((conflict) => conflict.columns(["account", "bucket", "key"]).doNothing())
      .returning("version")
      .executeTakeFirst();
    // Another transaction has created it meanwhile: look again.
    if (inserted) return inserted.version;
  }
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

/** The visible version of an object and where it lies. */
export async function findVersion(
  queries: Database["sql"] | Transaction["sql"],
  ref: ObjectRef,
): Promise<
  | (ObjectVersion & { readonly backendId: number; readonly physicalKey: PhysicalKey; readonly storedDigest: string })
  | undefined
> {
  const row = await queries
    .selectFrom("objects")
    .innerJoin("locations", "locations.id", "objects.location_id")
    .where("objects.account", "=", ref.account)
    .where("objects.bucket", "=", ref.bucket)
    .where("objects.key", "=", ref.key)
    .select([
      "objects.version",
      "locations.id",
      "backend_id",
      "physical_key",
      "content_digest",
      "content_bytes",
      "stored_digest",
      "stored_bytes",
    ])
    .executeTakeFirst();
  if (!row) return undefined;
  const { content_digest, content_bytes, stored_digest, stored_bytes } = row;
  if (content_digest === null || content_bytes === null || stored_digest === null || stored_bytes === null) {
    throw new TypeError("a live location has no digests");
  }
  return {
    ref,
    version: row.version,
    locationId: row.id,
    backendId: row.backend_id,
    physicalKey: row.physical_key as PhysicalKey,
    contentDigest: content_digest,
    contentBytes: content_bytes,
    storedDigest: stored_digest,
    storedBytes: stored_bytes,
  };
}

/** Decides which locations go: pending ones whose writer's lease has ended, retired ones whose grace period is over. Returns how many. */
export async function condemn(
  database: Database,
  backendId: number,
  graceSeconds: number,
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
              and([eb("state", "=", "pending"), eb("lease_until", "<", sql<Date>`now()`)]),
              and([eb("state", "=", "retired"), eb("state_since", "<=", ago(graceSeconds))]),
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

/** Locations whose bytes are to go: proven ones at once, others when they are fresh, and again when they are `lateSeconds` old. */
export async function condemned(
  database: Database,
  backendId: number,
  lateSeconds: number,
  limit: number,
): Promise<readonly (LocationRow & { readonly isLate: boolean })[]> {
  const rows = await database.sql
    .selectFrom("locations")
    .where("backend_id", "=", backendId)
    .where("state", "=", "deleting")
    .where(({ eb, or }) =>
      or([
        eb("stored_digest", "is not", null),
        eb("writer", "is not", null),
        eb("state_since", "<=", ago(lateSeconds)),
      ]),
    )
    .select([
      "id",
      "physical_key",
      "stored_bytes",
      "stored_digest",
      sql<boolean>`state_since <= ${ago(lateSeconds)}`.as("is_late"),
    ])
    // Those that could not be deleted come last, so that they never keep the others.
    .orderBy("lease_until", (order) => order.asc().nullsFirst())
    .orderBy("id")
    .limit(limit)
    .execute();
  return rows.map((row) => ({
    id: row.id,
    physicalKey: row.physical_key as PhysicalKey,
    storedBytes: row.stored_bytes ?? 0,
    isProven: row.stored_digest !== null,
    isLate: row.is_late,
  }));
}

/** The first deletion of an unproven location is done; the row waits for the second. */
export async function markDeletedOnce(database: Database, id: number): Promise<void> {
  await database.sql
    .updateTable("locations")
    .set({ writer: null })
    .where("id", "=", id)
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

export async function removeLocation(database: Database, id: number): Promise<void> {
  await database.sql.deleteFrom("locations").where("id", "=", id).where("state", "=", "deleting").execute();
}

function inSeconds(seconds: number) {
  return sql<string>`now() + make_interval(secs => ${seconds})`;
}

function ago(seconds: number) {
  return sql<Date>`now() - make_interval(secs => ${seconds})`;
}
