import { sql } from "kysely";
import type { Database, Transaction } from "../db/index.ts";

/** What is known of a layer before it is read. */
export interface KnownLayer {
  /** stowage itself read this blob, under such a descriptor, and found this diffID. */
  readonly isVerified: boolean;
  /** The account has shown that it may read the blob. */
  readonly isAccessible: boolean;
  readonly hasDocument: boolean;
  /** Its use has been renewed so lately that it stays for long anyway. */
  readonly isJustUsed: boolean;
}

/** Short beside the time for which an unused layer stays. */
const justUsedSeconds = 60;

/** A layer whose document may be there. */
export interface AskedLayer {
  readonly layerKey: string;
  readonly blobDigest: string;
  readonly blobBytes: number;
  readonly diffId: string;
  /** What its media type says, if it says something. */
  readonly compression: string | undefined;
}

/** What is known of each layer, in their order. */
export async function findLayers(
  database: Database,
  account: string,
  layers: readonly AskedLayer[],
): Promise<readonly KnownLayer[]> {
  if (layers.length === 0) return [];
  const { rows } = await sql<KnownLayer>`
    select
      exists (
        select from verified_pairs as pair
        where pair.blob_digest = asked.blob_digest and pair.diff_id = asked.diff_id
          and pair.blob_bytes = asked.blob_bytes
          and (asked.compression is null or pair.announced_compression = asked.compression)
      ) as "isVerified",
      exists (select from layer_access where account = ${account} and blob_digest = asked.blob_digest)
        as "isAccessible",
      document.layer_key is not null as "hasDocument",
      coalesce(document.last_used_at > now() - make_interval(secs => ${justUsedSeconds}), false) as "isJustUsed"
    from unnest(
      ${layers.map(({ layerKey }) => layerKey)}::text[],
      ${layers.map(({ blobDigest }) => blobDigest)}::text[],
      ${layers.map(({ blobBytes }) => blobBytes)}::bigint[],
      ${layers.map(({ diffId }) => diffId)}::text[],
      ${layers.map(({ compression = null }) => compression)}::text[]
    ) with ordinality as asked (layer_key, blob_digest, blob_bytes, diff_id, compression, position)
    left join layer_documents as document on document.layer_key = asked.layer_key
    order by asked.position`.execute(database.sql);
  return rows;
}

/** The layer's document is visible from now on, and the pair of blob and diffID is verified. */
export async function recordLayer(
  tx: Transaction,
  layer: {
    readonly layerKey: string;
    readonly fingerprint: string;
    readonly blobDigest: string;
    readonly diffId: string;
    readonly blobBytes: number;
    readonly compression: string | undefined;
    readonly layerBytes: number;
  },
): Promise<void> {
  await tx.sql
    .insertInto("layer_documents")
    .values({
      layer_key: layer.layerKey,
      diff_id: layer.diffId,
      fingerprint: layer.fingerprint,
      last_used_at: sql<string>`now()`,
    })
    .onConflict((conflict) => conflict.column("layer_key").doUpdateSet({ last_used_at: sql<string>`now()` }))
    .execute();
  await tx.sql
    .insertInto("verified_pairs")
    .values({
      blob_digest: layer.blobDigest,
      diff_id: layer.diffId,
      blob_bytes: layer.blobBytes,
      layer_bytes: layer.layerBytes,
      announced_compression: layer.compression ?? null,
      verified_at: sql<string>`now()`,
    })
    // Read again under a media type that says more, or something else: what was right before would be again.
    .onConflict((conflict) =>
      conflict.columns(["blob_digest", "diff_id"]).doUpdateSet({
        announced_compression: sql<string>`coalesce(excluded.announced_compression, verified_pairs.announced_compression)`,
      }),
    )
    .execute();
}

/** The account has shown that it may read these blobs. */
export async function recordAccess(tx: Transaction, account: string, blobDigests: readonly string[]): Promise<void> {
  if (blobDigests.length === 0) return;
  // In one order, so that two that record the same ones don't wait for each other.
  const sorted = [...new Set(blobDigests)].sort();
  await tx.sql
    .insertInto("layer_access")
    .values(sorted.map((digest) => ({ account, blob_digest: digest, shown_at: sql<string>`now()` })))
    .onConflict((conflict) => conflict.columns(["account", "blob_digest"]).doNothing())
    .execute();
}

/**
 * Says that layer documents are used now, and keeps them until the transaction ends. Returns those that are still there.
 */
export async function useLayers(tx: Transaction, layerKeys: readonly string[]): Promise<ReadonlySet<string>> {
  if (layerKeys.length === 0) return new Set();
  const rows = await tx.sql
    .updateTable("layer_documents")
    .set({ last_used_at: sql<string>`now()` })
    .where("layer_key", "in", [...layerKeys].sort())
    .returning("layer_key")
    .execute();
  return new Set(rows.map((row) => row.layer_key));
}

/** From now on the layer has no document, whoever stands on it. */
export async function forgetLayer(tx: Transaction, layerKey: string): Promise<void> {
  await tx.sql.deleteFrom("layer_documents").where("layer_key", "=", layerKey).execute();
}

/** Forgets layer documents that no image stands on and nobody used for `graceSeconds`; at most `limit`. Returns their keys. */
export async function forgetUnusedLayers(
  tx: Transaction,
  graceSeconds: number,
  limit: number,
): Promise<readonly string[]> {
  const rows = await tx.sql
    // A table of its own: the planner may run a subquery more than once, each time with other rows and a limit of its own.
    .with(
      (table) => table("unused").materialized(),
      (query) =>
        query
          .selectFrom("layer_documents")
          .where("last_used_at", "<", sql<Date>`now() - make_interval(secs => ${graceSeconds})`)
          .where(({ not, exists, selectFrom }) =>
            not(
              exists(
                selectFrom("image_layers")
                  .whereRef("image_layers.layer_key", "=", "layer_documents.layer_key")
                  .select("position"),
              ),
            ),
          )
          .select("layer_key")
          .orderBy("layer_key")
          .limit(limit)
          .forUpdate("layer_documents")
          .skipLocked(),
    )
    .deleteFrom("layer_documents")
    .where("layer_key", "in", (query) => query.selectFrom("unused").select("unused.layer_key"))
    .returning("layer_documents.layer_key")
    .execute();
  return rows.map((row) => row.layer_key);
}

/** A page of the layer documents that no image stands on, and when each may be forgotten: 0 = now. */
export async function unusedLayers(
  database: Database,
  graceSeconds: number,
  after: string,
  limit: number,
): Promise<readonly { readonly layerKey: string; readonly dueInSeconds: number }[]> {
  const rows = await database.sql
    .selectFrom("layer_documents")
    .where("layer_key", ">", after)
    .where(({ not, exists, selectFrom }) =>
      not(
        exists(
          selectFrom("image_layers")
            .whereRef("image_layers.layer_key", "=", "layer_documents.layer_key")
            .select("position"),
        ),
      ),
    )
    .select([
      "layer_key",
      sql<number>`greatest(0, ceil(extract(epoch from last_used_at - now()) + ${graceSeconds}))::integer`.as("seconds"),
    ])
    .orderBy("layer_key")
    .limit(limit)
    .execute();
  return rows.map((row) => ({ layerKey: row.layer_key, dueInSeconds: row.seconds }));
}
