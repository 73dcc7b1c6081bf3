import type { ColumnType, Generated, JSONColumnType } from "kysely";

/** Every table, in one place. Rooms use the tables that bear their names; `db/migrations` creates them. `bigint` columns come back as numbers. */

type Timestamp = ColumnType<Date, Date | string | undefined, Date | string>;
type Json<T extends object> = JSONColumnType<T>;

/** One row: which installation this database belongs to. */
export interface InstallationsTable {
  id: string; // uuid
  /** Which physical database it was when it last wrote to a shared backend: a restored copy is another one. */
  database_identity: string | null;
  created_at: Timestamp;
}

/** objects: a registered place of stored bytes. */
export interface BackendsTable {
  id: Generated<number>;
  driver: string;
  /** Settings without secrets, in canonical form; unique with `driver`. */
  settings: Json<Record<string, unknown>>;
  /** Its name in marker objects: the same place under another address is recognised by it. */
  mark: Generated<string>;
  /** Number of the marker object that says the backend is this installation's; 0 = none was made yet. */
  generation: Generated<number>;
  /** What that marker says; a copy of this database whose marker was replaced has another. */
  token: string | null;
  /** The intent: what the next marker will say. */
  next_token: string | null;
  created_at: Timestamp;
}

/** objects: the pointer of an object to its visible version. */
export interface ObjectsTable {
  account: string;
  bucket: string;
  key: string;
  location_id: number;
  /** Grows by one with each publication. */
  version: number;
  created_at: Timestamp;
  updated_at: Timestamp;
}

export type LocationState = "pending" | "live" | "retired" | "kept" | "deleting";

/** objects: where the bytes of one version lie. The states' meaning stands in `objects/states.ts`. */
export interface LocationsTable {
  id: Generated<number>;
  backend_id: number;
  physical_key: string;
  account: string;
  bucket: string;
  object_key: string;
  state: LocationState;
  state_since: Timestamp;
  /** Who stages it; meaningless once `live`. Empty in `deleting` when the bytes of an unproven one were deleted once. */
  writer: string | null;
  /** In `deleting`: orders those whose bytes could not be deleted after the others. */
  lease_until: ColumnType<Date | null, Date | string | null, Date | string | null>;
  /** How the bytes are encoded; known once they are proven, like all below. */
  codec: string | null;
  content_digest: string | null;
  content_bytes: number | null;
  stored_digest: string | null;
  stored_bytes: number | null;
  proven_at: ColumnType<Date | null, Date | string | null, Date | string | null>;
  /** What was wrong when it was read twice: it is read last, and repaired by `scrub`. */
  damage: string | null;
  /** When all of it was last read and found right. */
  checked_at: ColumnType<Date | null, Date | string | null, Date | string | null>;
  /** The migration that holds a `pending` one, however long it takes and whether or not it runs. */
  migration_id: number | null;
  created_at: Timestamp;
}

/** objects/drivers/db: the bytes of a blob in chunks. */
export interface ObjectChunksTable {
  physical_key: string;
  position: number;
  bytes: Buffer;
}

/** objects/drivers/db: a blob is there, whole, once this row is. */
export interface ObjectBlobsTable {
  physical_key: string;
  bytes: number;
  created_at: Timestamp;
}

/** objects: one reading back of everything, or of a share of it. At most one is unfinished. */
export interface ScrubsTable {
  id: Generated<number>;
  started_at: Timestamp;
  ended_at: ColumnType<Date | null, Date | string | null, Date | string | null>;
  /** Of the locations, from 0 to 1; chosen by `seed`. */
  share: number;
  seed: number;
  /** Where it has come to; null before the first backend. */
  backend_id: number | null;
  after_key: Generated<string>;
  objects: Generated<number>;
  bytes: Generated<number>;
}

/** objects: what a scrub found at one place. */
export interface ScrubFindingsTable {
  scrub_id: number;
  backend_id: number;
  physical_key: string;
  kind: "missing" | "truncated" | "damaged" | "unreadable" | "extra";
  detail: string;
  bytes: number | null;
}

export type MigrationState = "planning" | "running" | "complete" | "incomplete" | "cancelled";

/** migration: one order to move objects between backends. */
export interface MigrationsTable {
  id: Generated<number>;
  state: MigrationState;
  /** Driver and place, without secrets. */
  source: Json<Record<string, unknown>>;
  destination: Json<Record<string, unknown>>;
  options: Json<Record<string, unknown>>;
  /** `host:pid` of who works on it, or did last. */
  executor: string;
  /** How often it was begun or gone on with: who was at it before can do nothing any more, whether it knows that its lock is lost or not. */
  lives: Generated<number>;
  /** As planned. */
  objects: Generated<number>;
  bytes: Generated<number>;
  created_at: Timestamp;
  started_at: ColumnType<Date | null, Date | string | null, Date | string | null>;
  ended_at: ColumnType<Date | null, Date | string | null, Date | string | null>;
  updated_at: Timestamp;
}

export type MoveState = "planned" | "copied" | "verified" | "switched" | "done" | "superseded" | "abandoned";

/** migration: one object's way. The states' meaning stands in `migration/moves.ts`. */
export interface MigrationMovesTable {
  migration_id: number;
  source_location_id: number;
  account: string;
  bucket: string;
  object_key: string;
  version: number;
  source_backend_id: number;
  destination_backend_id: number;
  destination_location_id: number | null;
  content_digest: string;
  content_bytes: number;
  stored_bytes: number;
  state: MoveState;
  attempts: Generated<number>;
  /** Why it could not go on the last time. */
  error_code: string | null;
  error_text: string | null;
  updated_at: Timestamp;
}

/** objects: what would be written to one backend goes to another, whatever configurations say: an online migration empties it. */
export interface WriteRedirectsTable {
  backend_id: number;
  /** `*` for all buckets that have no row of their own. */
  bucket: string;
  to_backend_id: number;
  migration_id: number;
}

/** images: one row for each image of an account. Visible means it is here. */
export interface ImagesTable {
  account: string;
  digest: string;
  parent_digest: string;
  image_id: string;
  media_type: string;
  os: string;
  architecture: string;
  variant: string | null;
  distro: string | null;
  distro_version: string | null;
  layer_count: number;
  file_count: number;
  /** Sum of the sizes of the squashed view's regular files. */
  file_bytes: number;
  /** Compressed size of all layers. */
  blob_bytes: number;
  package_count: number;
  /** Packages by type. */
  package_counts: Json<Record<string, number>>;
  fingerprint: string;
  /** What is wrong with its document; it has to be analysed again. */
  damage: string | null;
  analyzed_at: Timestamp;
  created_at: Timestamp;
}

export interface ImageTagsTable {
  account: string;
  /** `registry/repository:tag` */
  full_tag: string;
  registry: string;
  repository: string;
  tag: string;
  digest: string;
  detected_at: Timestamp;
}

/** images: the layers an image stands on, lowest = 0. */
export interface ImageLayersTable {
  account: string;
  digest: string;
  position: number;
  blob_digest: string;
  blob_bytes: number;
  media_type: string;
  diff_id: string;
  /** Key in `layer_documents`; null for a layer that was not fetched (foreign). */
  layer_key: string | null;
}

/** analysis: a layer document that belongs to the system; the object's key is the layer key. */
export interface LayerDocumentsTable {
  layer_key: string;
  diff_id: string;
  fingerprint: string;
  last_used_at: Timestamp;
  created_at: Timestamp;
}

/** analysis: stowage itself read this blob and found this diffID. */
export interface VerifiedPairsTable {
  blob_digest: string;
  diff_id: string;
  blob_bytes: number;
  layer_bytes: number;
  verified_at: Timestamp;
  announced_compression: string | null;
}

/** analysis: an account has shown that it can read this blob. */
export interface LayerAccessTable {
  account: string;
  blob_digest: string;
  shown_at: Timestamp;
}

export interface SchemaMigrationsTable {
  name: string;
  is_breaking: boolean;
  applied_at: Timestamp;
}

export interface Tables {
  installations: InstallationsTable;
  backends: BackendsTable;
  objects: ObjectsTable;
  locations: LocationsTable;
  object_chunks: ObjectChunksTable;
  object_blobs: ObjectBlobsTable;
  migrations: MigrationsTable;
  migration_moves: MigrationMovesTable;
  write_redirects: WriteRedirectsTable;
  scrubs: ScrubsTable;
  scrub_findings: ScrubFindingsTable;
  images: ImagesTable;
  image_tags: ImageTagsTable;
  image_layers: ImageLayersTable;
  layer_documents: LayerDocumentsTable;
  verified_pairs: VerifiedPairsTable;
  layer_access: LayerAccessTable;
  schema_migrations: SchemaMigrationsTable;
}
