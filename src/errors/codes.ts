/**
 * The only table of error codes. A code is public: codes are added, never renamed or given another meaning.
 * `docs/reference/errors.md` is generated from here.
 */

/** Values that may stand in an error's details: what a message, a log line or a JSON body can show. */
export type DetailValue = string | number | boolean | readonly string[] | undefined;

/** What is known of a code, whatever the occurrence. `D` is the type of the details that go with it. */
export interface CodeEntry<D extends object> {
  /** HTTP status of an answer that carries this code. */
  readonly httpStatus: number;
  /** Exit code of a command that ends with this code: 1 refused or failed, 2 usage or configuration, 3 unreachable, 130 interrupted. */
  readonly exitCode: 1 | 2 | 3 | 130;
  /** Whether the same call may succeed when repeated later without anybody changing anything. */
  readonly retry: "never" | "later";
  readonly title: string;
  /** Type-only: the shape of the details. */
  readonly details?: D;
}

const code = <D extends object>(
  httpStatus: number,
  exitCode: CodeEntry<D>["exitCode"],
  retry: CodeEntry<D>["retry"],
  title: string,
): CodeEntry<D> => ({ httpStatus, exitCode, retry, title });

export const codes = {
  // INPUT: what a person or client typed
  INPUT_INVALID: code<{ what: string; value?: string; reason?: string }>(400, 2, "never", "invalid input"),
  INPUT_INTERRUPTED: code<{ what?: string }>(499, 130, "never", "interrupted"),
  INPUT_DECLINED: code<{ what: string }>(409, 1, "never", "not confirmed"),
  INPUT_OUTPUT_FAILED: code<{ reason: string }>(500, 1, "never", "standard output can't be written"),
  INPUT_FILE_UNWRITABLE: code<{ file: string; reason: string }>(500, 1, "never", "a file can't be written"),

  // CONFIG
  // `also`: the other mistakes of the file
  CONFIG_INVALID: code<{ key?: string; file?: string; line?: number; reason: string; also?: readonly string[] }>(
    500,
    2,
    "never",
    "invalid configuration",
  ),
  CONFIG_TEMPORARY_UNUSABLE: code<{ directory?: string; reason: string }>(
    500,
    1,
    "never",
    "temporary files can't be written",
  ),
  CONFIG_NODE_TOO_OLD: code<{ found: string; needed: string }>(500, 2, "never", "this Node.js is too old"),

  // ACCESS
  ACCESS_DENIED: code<{ host: string; status?: number; repository?: string; reason?: string }>(
    403,
    1,
    "never",
    "access denied",
  ),

  // LIMIT: one code for each limit family; `limit` names the exact one
  LIMIT_EXCEEDED: code<{ limit: string; max: number; found?: number; where?: string }>(
    413,
    1,
    "never",
    "a limit was exceeded",
  ),

  // REGISTRY
  REGISTRY_UNREACHABLE: code<{ host: string; reason?: string }>(502, 3, "later", "the registry can't be reached"),
  REGISTRY_REFUSED: code<{ host: string; status: number; reason?: string }>(
    502,
    1,
    "never",
    "the registry refused the request",
  ),
  REGISTRY_UNAVAILABLE: code<{ host: string; status: number; attempts?: number }>(
    503,
    3,
    "later",
    "the registry is unavailable",
  ),
  REGISTRY_REDIRECT_REFUSED: code<{ host: string; target: string; reason: string }>(
    502,
    1,
    "never",
    "the registry redirected to a place that is not followed",
  ),
  REGISTRY_ANSWER_INVALID: code<{ host: string; reason: string }>(
    502,
    1,
    "never",
    "the registry's answer makes no sense",
  ),

  // IMAGE
  IMAGE_NOT_FOUND: code<{ image: string }>(404, 1, "never", "no such image"),
  IMAGE_AMBIGUOUS: code<{ image: string; candidates: readonly string[] }>(409, 1, "never", "several images fit"),
  IMAGE_SEVERAL_FAILED: code<{ failed: number; of: number }>(422, 1, "never", "not all images could be analysed"),
  IMAGE_SOURCE_UNREADABLE: code<{ source: string; reason: string }>(400, 1, "never", "the image source can't be read"),
  IMAGE_PLATFORM_MISSING: code<{ platform: string; available: readonly string[]; reason?: string }>(
    404,
    1,
    "never",
    "the image has no such platform",
  ),
  IMAGE_MANIFEST_INVALID: code<{ reason: string; digest?: string }>(422, 1, "never", "the manifest is invalid"),
  IMAGE_SCHEMA1_UNSUPPORTED: code<{ mediaType: string }>(
    422,
    1,
    "never",
    "schema 1 manifests are obsolete and not supported",
  ),
  IMAGE_NOT_A_CONTAINER_IMAGE: code<{ mediaType: string }>(422, 1, "never", "an artifact, not a container image"),
  IMAGE_BLOB_MISSING: code<{ digest: string }>(422, 1, "never", "the image names a blob that is not there"),
  IMAGE_DIGEST_MISMATCH: code<{ what: string; expected: string; actual: string }>(
    422,
    1,
    "never",
    "bytes do not have the digest that names them",
  ),
  IMAGE_SIZE_MISMATCH: code<{ what: string; expected: number; actual: number }>(
    422,
    1,
    "never",
    "bytes do not have the size that was announced",
  ),

  // LAYER
  LAYER_COMPRESSION_INVALID: code<{ layer: string; reason: string }>(
    422,
    1,
    "never",
    "the layer's compression is damaged or not what its media type says",
  ),
  LAYER_TAR_INVALID: code<{ layer: string; offset: number; reason: string }>(
    422,
    1,
    "never",
    "the layer is not a valid tar stream",
  ),
  LAYER_CACHE_DAMAGED: code<{ directory: string; entries: number }>(
    500,
    1,
    "later",
    "entries of the layer cache were damaged and have been dropped",
  ),
  LAYER_CACHE_UNUSABLE: code<{ directory: string; reason: string }>(500, 1, "never", "the layer cache can't be used"),
  LAYER_DOCUMENT_INVALID: code<{ document: string; reason: string }>(500, 1, "never", "a layer document is damaged"),

  // OBJECT
  OBJECT_NOT_FOUND: code<{ bucket: string; key: string }>(404, 1, "never", "no such object"),
  OBJECT_DIGEST_MISMATCH: code<{ bucket: string; key: string; expected: string; actual: string }>(
    500,
    1,
    "never",
    "stored bytes are not those that were stored",
  ),
  OBJECT_LEASE_LOST: code<{ bucket: string; key: string }>(
    503,
    1,
    "later",
    "an object could not be published: its lease was lost",
  ),
  OBJECT_DAMAGED: code<{ objects: number; images: number }>(
    500,
    1,
    "never",
    "stored objects are damaged, or images have to be analysed again because some were",
  ),
  OBJECT_CODEC_UNKNOWN: code<{ codec: string }>(500, 1, "never", "an object is encoded in a way that is not known"),

  // BACKEND
  BACKEND_UNREACHABLE: code<{ driver: string; operation?: string; reason?: string }>(
    503,
    3,
    "later",
    "the storage backend can't be reached",
  ),
  BACKEND_FAILED: code<{ driver: string; operation: string; key?: string; reason?: string }>(
    500,
    1,
    "later",
    "the storage backend failed",
  ),
  BACKEND_DENIED: code<{ driver: string; operation: string; permission?: string; resource?: string; reason?: string }>(
    502,
    1,
    "never",
    "the storage backend refused access",
  ),
  BACKEND_THROTTLED: code<{ driver: string; operation: string; key?: string; retryAfterMs?: number; reason?: string }>(
    503,
    3,
    "later",
    "the storage backend asks to slow down",
  ),
  BACKEND_FULL: code<{ driver: string; operation: string; key?: string; reason?: string }>(
    507,
    1,
    "never",
    "the storage backend has no space left",
  ),
  BACKEND_STALLED: code<{ driver: string; operation: string; key?: string; silentMs: number }>(
    504,
    3,
    "later",
    "the storage backend has stopped answering",
  ),
  BACKEND_CONTAINER_MISSING: code<{ driver: string; container: string; reason?: string }>(
    500,
    1,
    "never",
    "the bucket, container or directory is not there",
  ),
  BACKEND_FOREIGN: code<{ driver: string; place: string; found: string; expected: string }>(
    409,
    1,
    "never",
    "the storage backend belongs to another installation or to another copy of this database",
  ),
  BACKEND_LEFT_OUT: code<{ places: readonly string[]; reason: string }>(
    502,
    1,
    "later",
    "not all storage backends could be dealt with",
  ),
  BACKEND_UNKNOWN: code<{ driver: string; place: string }>(
    500,
    2,
    "never",
    "the object lies at a storage backend that the configuration does not name",
  ),
  BACKEND_KEY_EXISTS: code<{ driver: string; key: string }>(
    409,
    1,
    "never",
    "a physical key is already taken: nothing is ever overwritten",
  ),
  BACKEND_KEY_MISSING: code<{ driver: string; key: string }>(500, 1, "never", "bytes are missing at the backend"),

  // MIGRATION
  MIGRATION_NOT_FOUND: code<{ migration: number }>(404, 1, "never", "no such migration"),
  MIGRATION_OVERLAPS: code<{ migration?: number }>(
    409,
    1,
    "never",
    "another migration that has not come to its end has some of these objects",
  ),
  MIGRATION_DIFFERS: code<{ migration: number; reason: string }>(
    409,
    1,
    "never",
    "a migration of the same documents was begun with other options",
  ),
  MIGRATION_BUSY: code<{ migration: number; executor: string }>(
    409,
    1,
    "later",
    "another process is carrying out this migration",
  ),
  MIGRATION_INCOMPLETE: code<{ migration: number; state: string; left: number; failed: number }>(
    409,
    1,
    "later",
    "the migration has not moved everything",
  ),
  MIGRATION_STORE_IN_USE: code<{ processes: readonly string[] }>(
    409,
    1,
    "later",
    "other processes have the object store open",
  ),
  MIGRATION_RUNNING: code<{ reason?: string }>(503, 3, "later", "the object store is being migrated offline"),

  // DB
  DB_UNREACHABLE: code<{ database: string; reason?: string }>(503, 3, "later", "the database can't be reached"),
  DB_SCHEMA_NEWER: code<{ found: string; known: string }>(
    500,
    2,
    "never",
    "the database was written by a newer stowage",
  ),
  DB_EMBEDDED_FAILED: code<{ reason: string; log?: string }>(
    500,
    1,
    "never",
    "the embedded database could not be started",
  ),
  DB_FAILED: code<{ reason: string }>(500, 1, "later", "a database statement failed"),
  DB_DENIED: code<{ permission?: string; resource?: string; reason: string }>(
    500,
    1,
    "never",
    "the database's user lacks a right",
  ),
  DB_LOCK_LOST: code<{ lock: string }>(503, 1, "later", "a lock was lost with its database connection"),

  // INTERNAL
  INTERNAL_FAILURE: code<{ reason: string }>(500, 1, "never", "an internal error; please report it"),
} as const;

export type ErrorCode = keyof typeof codes;

/** The details that go with a code. */
export type DetailsOf<C extends ErrorCode> = (typeof codes)[C] extends CodeEntry<infer D> ? D : never;
