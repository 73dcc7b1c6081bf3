import { sql } from "kysely";
import type { Database, Transaction } from "../db/index.ts";

/** What is known of a layer before it is read. */
export interface KnownLayer {
  /** stowage itself read this blob and found this diffID. */
  readonly isVerified: boolean;
  /** The account has shown that it may read the blob. */
  readonly isAccessible: boolean;
  readonly hasDocument: boolean;
  /** Its use has been renewed so lately that it stays for long anyway. */
  readonly isJustUsed: boolean;
}

/** Short beside the time for which an unused layer stays. */
const justUsedSeconds = 60;

export async function findLayer(
  database: Database,
  account: string,
  layerKey: string,
  blobDigest: string,
  diffId: string,
): Promise<KnownLayer> {
  const { sql: queries } = database;
  const row = await queries
    .selectNoFrom(({ exists, selectFrom }) => [
      exists(
        selectFrom("verified_pairs")
          .where("blob_digest", "=", blobDigest)
          .where("diff_id", "=", diffId)
          .select("diff_id"),
      ).as("verified"),
      exists(
        selectFrom("layer_access")
          .where("account", "=", account)
          .where("blob_digest", "=", blobDigest)
          .select("account"),
      ).as("accessible"),
      exists(selectFrom("layer_documents").where("layer_key", "=", layerKey).select("layer_key")).as("document"),
      exists(
        selectFrom("layer_documents")
          .where("layer_key", "=", layerKey)
          .where("last_used_at", ">", sql<Date>`now() - make_interval(secs => ${justUsedSeconds})`)
          .select("layer_key"),
      ).as("just_used"),
    ])
    .executeTakeFirstOrThrow();
  return {
    isVerified: Boolean(row.verified),
    isAccessible: Boolean(row.accessible),
    hasDocument: Boolean(row.document),
    isJustUsed: Boolean(row.just_used),
  };
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
      verified_at: sql<string>`now()`,
    })
    .onConflict((conflict) => conflict.columns(["blob_digest", "diff_id"]).doNothing())
    .execute();
}

export async function recordAccess(tx: Transaction, account: string, blobDigest: string): Promise<void> {
  await tx.sql
    .insertInto("layer_access")
    .values({ account, blob_digest: blobDigest, shown_at: sql<string>`now()` })
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
