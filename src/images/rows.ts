import { type Kysely, type Transaction as KyselyTransaction, sql } from "kysely";
import type { Tables, Transaction } from "../db/index.ts";

type Queries = Kysely<Tables> | KyselyTransaction<Tables>;

/** An image as its row and its tags say. */
export interface ImageRecord {
  readonly account: string;
  readonly digest: string;
  readonly parentDigest: string;
  readonly imageId: string;
  readonly mediaType: string;
  readonly os: string;
  readonly architecture: string;
  readonly variant: string | undefined;
  readonly distro: string | undefined;
  readonly distroVersion: string | undefined;
  readonly files: number;
  readonly fileBytes: number;
  readonly blobBytes: number;
  readonly packageCounts: Readonly<Record<string, number>>;
  readonly fingerprint: string;
  /** What is wrong with what is kept of it, and what to do about it. */
  readonly damage: string | undefined;
  readonly analyzedAt: Date;
  readonly layerCount: number;
  /** Sorted. */
  readonly fullTags: readonly string[];
}

export interface ImageLayerRecord {
  readonly position: number;
  readonly blobDigest: string;
  readonly blobBytes: number;
  readonly mediaType: string;
  readonly diffId: string;
  readonly layerKey: string | undefined;
}

export interface TagName {
  readonly registry: string;
  readonly repository: string;
  readonly tag: string;
}

type NewImage = Omit<ImageRecord, "fullTags" | "analyzedAt" | "damage">;

/** Writes an image and its layers, replacing what an earlier analysis said. */
export async function writeImage(tx: Transaction, image: NewImage, layers: readonly ImageLayerRecord[]): Promise<void> {
  const values = {
    parent_digest: image.parentDigest,
    image_id: image.imageId,
    media_type: image.mediaType,
    os: image.os,
    architecture: image.architecture,
    variant: image.variant ?? null,
    distro: image.distro ?? null,
    distro_version: image.distroVersion ?? null,
    layer_count: image.layerCount,
    file_count: image.files,
    file_bytes: image.fileBytes,
    blob_bytes: image.blobBytes,
    package_count: Object.values(image.packageCounts).reduce((sum, count) => sum + count, 0),
    package_counts: JSON.stringify(image.packageCounts),
    fingerprint: image.fingerprint,
    damage: null,
    analyzed_at: sql<string>`now()`,
  };
  await tx.sql
    .insertInto("images")
    .values({ account: image.account, digest: image.digest, ...values })
    .onConflict((conflict) => conflict.columns(["account", "digest"]).doUpdateSet(values))
    .execute();
  await tx.sql
    .deleteFrom("image_layers")
    .where("account", "=", image.account)
    .where("digest", "=", image.digest)
    .execute();
  if (layers.length === 0) return;
  await tx.sql
    .insertInto("image_layers")
    .values(
      layers.map((layer) => ({
        account: image.account,
        digest: image.digest,
        position: layer.position,
        blob_digest: layer.blobDigest,
        blob_bytes: layer.blobBytes,
        media_type: layer.mediaType,
        diff_id: layer.diffId,
        layer_key: layer.layerKey ?? null,
      })),
    )
    .execute();
}

/** Says through which index an image was found. */
export async function writeParent(
  tx: Transaction,
  account: string,
  digest: string,
  parentDigest: string,
): Promise<void> {
  await tx.sql
    .updateTable("images")
    .set({ parent_digest: parentDigest })
    .where("account", "=", account)
    .where("digest", "=", digest)
    .execute();
}

/** Points a tag at an image, away from whatever it pointed at. */
export async function writeTag(
  tx: Transaction,
  account: string,
  digest: string,
  fullTag: string,
  name: TagName,
): Promise<void> {
  await tx.sql
    .insertInto("image_tags")
    .values({ account, full_tag: fullTag, ...name, digest, detected_at: sql<string>`now()` })
    .onConflict((conflict) =>
      conflict.columns(["account", "full_tag"]).doUpdateSet({ digest, detected_at: sql<string>`now()` }),
    )
    .execute();
}

function selectImages(queries: Queries, account: string) {
  return queries
    .selectFrom("images")
    .where("images.account", "=", account)
    .selectAll("images")
    .select((builder) =>
      builder
        .selectFrom("image_tags")
        .whereRef("image_tags.account", "=", "images.account")
        .whereRef("image_tags.digest", "=", "images.digest")
        .select(sql<string[]>`coalesce(array_agg(full_tag order by full_tag), '{}')`.as("tags"))
        .as("full_tags"),
    );
}

type SelectedImage = Awaited<ReturnType<ReturnType<typeof selectImages>["execute"]>>[number];

function recordOf(row: SelectedImage): ImageRecord {
  return {
    account: row.account,
    digest: row.digest,
    parentDigest: row.parent_digest,
    imageId: row.image_id,
    mediaType: row.media_type,
    os: row.os,
    architecture: row.architecture,
    variant: row.variant ?? undefined,
    distro: row.distro ?? undefined,
    distroVersion: row.distro_version ?? undefined,
    files: row.file_count,
    fileBytes: row.file_bytes,
    blobBytes: row.blob_bytes,
    packageCounts: row.package_counts,
    fingerprint: row.fingerprint,
    damage: row.damage ?? undefined,
    analyzedAt: row.analyzed_at,
    layerCount: row.layer_count,
    fullTags: row.full_tags ?? [],
  };
}

const pageSize = 500;
// The driver's dates have milliseconds, the table's microseconds: pages must agree on one of them.
const analyzedAtMs = sql<Date>`date_trunc('milliseconds', analyzed_at)`;

/** All images of an account, newest analysis first, read a page at a time. */
export async function* listImages(queries: Queries, account: string): AsyncGenerator<ImageRecord> {
  let last: SelectedImage | undefined;
  do {
    let query = selectImages(queries, account).orderBy(analyzedAtMs, "desc").orderBy("images.digest").limit(pageSize);
    if (last) {
      const { analyzed_at, digest } = last;
      query = query.where(({ eb, or, and }) =>
        or([
          eb(analyzedAtMs, "<", analyzed_at),
          and([eb(analyzedAtMs, "=", analyzed_at), eb("images.digest", ">", digest)]),
        ]),
      );
    }
    const rows = await query.execute();
    for (const row of rows) yield recordOf(row);
    last = rows.length < pageSize ? undefined : rows.at(-1);
  } while (last);
}

/** Images whose digest, parent digest or image id is `digest`, newest first. */
export async function findByDigest(queries: Queries, account: string, digest: string): Promise<readonly ImageRecord[]> {
  const rows = await selectImages(queries, account)
    .where(({ eb, or }) =>
      or([eb("images.digest", "=", digest), eb("image_id", "=", digest), eb("parent_digest", "=", digest)]),
    )
    .orderBy("analyzed_at", "desc")
    .limit(100)
    .execute();
  return rows.map(recordOf);
}

export async function findByTag(queries: Queries, account: string, fullTag: string): Promise<ImageRecord | undefined> {
  const row = await selectImages(queries, account)
    .innerJoin("image_tags", (join) =>
      join.onRef("image_tags.account", "=", "images.account").onRef("image_tags.digest", "=", "images.digest"),
    )
    .where("image_tags.full_tag", "=", fullTag)
    .executeTakeFirst();
  return row && recordOf(row);
}

export async function layersOf(
  queries: Queries,
  account: string,
  digest: string,
): Promise<readonly ImageLayerRecord[]> {
  const rows = await queries
    .selectFrom("image_layers")
    .where("account", "=", account)
    .where("digest", "=", digest)
    .orderBy("position")
    .selectAll()
    .execute();
  return rows.map((row) => ({
    position: row.position,
    blobDigest: row.blob_digest,
    blobBytes: row.blob_bytes,
    mediaType: row.media_type,
    diffId: row.diff_id,
    layerKey: row.layer_key ?? undefined,
  }));
}

/** Whether an image is there with this fingerprint; if so, it stays until the transaction ends. */
export async function holdImage(
  tx: Transaction,
  account: string,
  digest: string,
  fingerprint: string,
): Promise<boolean> {
  const held = await tx.sql
    .selectFrom("images")
    .where("account", "=", account)
    .where("digest", "=", digest)
    .where("fingerprint", "=", fingerprint)
    .select("digest")
    .forShare()
    .executeTakeFirst();
  return held !== undefined;
}

/** Removes an image with its tags and layer rows; false when it is not there. */
export async function removeImage(tx: Transaction, account: string, digest: string): Promise<boolean> {
  const result = await tx.sql
    .deleteFrom("images")
    .where("account", "=", account)
    .where("digest", "=", digest)
    .executeTakeFirst();
  return result.numDeletedRows > 0n;
}

const documentDamage = "its analysis document is damaged: analyse it again";
const layerDamage = "a document of its layers is damaged: analyse it again";

/** Says of an image that one of its own documents is lost, as long as `isLost` says so; who analyses it again waits, or is waited for. */
export async function markDamaged(
  tx: Transaction,
  account: string,
  digest: string,
  isLost: () => Promise<boolean>,
): Promise<boolean> {
  const held = await tx.sql
    .selectFrom("images")
    .where("account", "=", account)
    .where("digest", "=", digest)
    .select("digest")
    .forUpdate()
    .executeTakeFirst();
  if (held === undefined || !(await isLost())) return false;
  await tx.sql
    .updateTable("images")
    .set({ damage: documentDamage })
    .where("account", "=", account)
    .where("digest", "=", digest)
    .execute();
  return true;
}

/** Says of all images that stand on a layer that its document is lost. Returns how many. */
export async function markLayerLost(tx: Transaction, layerKey: string): Promise<number> {
  const result = await tx.sql
    .updateTable("images")
    .set({ damage: sql<string>`coalesce(damage, ${layerDamage})` })
    .where(({ exists, selectFrom }) =>
      exists(
        selectFrom("image_layers")
          .whereRef("image_layers.account", "=", "images.account")
          .whereRef("image_layers.digest", "=", "images.digest")
          .where("layer_key", "=", layerKey)
          .select("position"),
      ),
    )
    .executeTakeFirst();
  return Number(result.numUpdatedRows);
}

/** The layer's document is there again: images that stand on it are whole unless another of their layers has none. */
export async function markLayerFound(tx: Transaction, layerKey: string): Promise<void> {
  const layers = sql`from image_layers l where l.account = images.account and l.digest = images.digest`;
  await sql`update images set damage = null where damage = ${layerDamage}
    and exists (select 1 ${layers} and l.layer_key = ${layerKey})
    and not exists (select 1 ${layers} and l.layer_key is not null and l.layer_key <> ${layerKey}
      and not exists (select 1 from layer_documents d where d.layer_key = l.layer_key))`.execute(tx.sql);
}

/** Images that have to be analysed again, at most `limit`, and how many there are. */
export async function listDamaged(
  queries: Queries,
  account: string,
  limit: number,
): Promise<{ readonly count: number; readonly images: readonly ImageRecord[] }> {
  const { count } = await queries
    .selectFrom("images")
    .where("account", "=", account)
    .where("damage", "is not", null)
    .select(({ fn }) => fn.countAll<number>().as("count"))
    .executeTakeFirstOrThrow();
  const rows = await selectImages(queries, account)
    .where("images.damage", "is not", null)
    .orderBy("images.digest")
    .limit(limit)
    .execute();
  return { count, images: rows.map(recordOf) };
}
