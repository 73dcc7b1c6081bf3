import { Readable } from "node:stream";
import type { RawBuilder } from "kysely";
import type { ZodType } from "zod";
import type { Database } from "../db/index.ts";
import type { Call } from "../runtime/index.ts";

declare const brand: unique symbol;

/** Name of stored bytes at a backend: random, chosen by the store, never reused. Made by `createPhysicalKey` and `parsePhysicalKey` only. */
export type PhysicalKey = string & { readonly [brand]: "PhysicalKey" };

export interface DriverCapabilities {
  /** The largest blob it takes, in bytes. */
  readonly objectBytesMax: number;
  /** A put onto an existing key fails, whatever races. */
  readonly exclusivePut: boolean;
  /** The backend itself computes the SHA-256 of what it stores: `StoredBlob.digest` is there; otherwise the store reads back. */
  readonly serverDigest: boolean;
  /** Others than this database can reach the same bytes, so a marker has to say whose they are. */
  readonly isShared: boolean;
  /** How long a listing may lag behind, in milliseconds. */
  readonly listLagMs: number;
}

/** A body that can be opened again from its start for a retry. The opener owns and ends the stream. */
export interface BodySource {
  open(call: Call): Promise<Readable>;
  /** Exact length in bytes when known. */
  readonly sizeBytes?: number;
  /** All of it, where it is short and in memory already: who has that needs no stream. */
  readonly bytes?: Buffer;
  /** SHA-256 of `bytes`, where it is known. */
  readonly sha256?: Buffer;
}

/** A stream of bytes that are in memory already: who knows that takes them as they are, and need not destroy it. */
export class WholeBody extends Readable {
  readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    super();
    this.bytes = bytes;
  }

  override _read(): void {
    if (this.bytes.length > 0) this.push(this.bytes);
    this.push(null);
  }
}

export interface StoredBlob {
  readonly key: PhysicalKey;
  readonly sizeBytes: number;
  /** `sha256:…` as the backend computed it of what it stored. */
  readonly digest?: string;
}

/** What lies at a driver's place under no name of a blob. */
export interface ForeignBlob {
  /** Its name there, as whoever looks after the place knows it. */
  readonly name: string;
  readonly sizeBytes: number;
  /** The blob that it would have become or belongs to, where it is a part of a put that has not ended, or never will. */
  readonly partOf?: PhysicalKey;
}

/** A blob that is to go; the length that every put of its key had, where that is known. */
export interface DoomedBlob {
  readonly key: PhysicalKey;
  readonly sizeBytes: number | undefined;
}

/** First and last byte, both inclusive. */
export interface ByteRange {
  readonly first: number;
  readonly last: number;
}

/** A short blob that is in memory. */
export interface WholeBlob {
  readonly key: PhysicalKey;
  readonly bytes: Buffer;
  readonly sha256: Buffer;
}

/** Puts as a part of a statement of the store's, where blobs lie in the database that has its rows: they are there with these or not at all. */
export interface StatementPuts {
  /** What is longer is put by `put`. */
  readonly bytesMax: number;
  /**
   * Common table expressions that put blobs under new keys. Before them stands `permit`: where it has no row, nothing is put. The last of them,
   * `stored (physical_key)`, has the keys of what was put; what has arrived with another SHA-256 than the given one, as the server computes it, was not.
   */
  expressions(blobs: readonly WholeBlob[]): RawBuilder<unknown>;
}

/** Bytes by physical key. Knows no objects, codecs or pointers. */
export interface ObjectDriver extends AsyncDisposable {
  readonly name: string;
  /** Only where a backend can do that. */
  readonly statementPuts?: StatementPuts;
  /** What the backend really does: found out once, by trying where its word can't be trusted, then remembered. */
  capabilities(call: Call): Promise<DriverCapabilities>;
  /**
   * Stores the body under a new key: atomic, durable when it resolves, never overwrites.
   * @throws StowageError `BACKEND_KEY_EXISTS`, `BACKEND_UNREACHABLE`, `BACKEND_FAILED`, `BACKEND_DENIED`, `BACKEND_FULL`, `BACKEND_THROTTLED`
   */
  put(key: PhysicalKey, body: BodySource, call: Call): Promise<StoredBlob>;
  /**
   * What is short may come as a `WholeBody`.
   * @throws StowageError `BACKEND_KEY_MISSING` before the first byte when nothing is there
   */
  get(key: PhysicalKey, range: ByteRange | undefined, call: Call): Promise<Readable>;
  /** Deleting what is not there succeeds. */
  delete(key: PhysicalKey, call: Call): Promise<void>;
  /**
   * As `delete`, and takes with it whatever else a put of this key that never ended has left: parts, temporary files. `sizeBytes`, where it is known, is
   * the length that every put of this key had.
   */
  purge(key: PhysicalKey, sizeBytes: number | undefined, call: Call): Promise<void>;
  /**
   * Whole blobs, many in one request; only where a backend can do that. What the answer does not have is to be asked for with `get`: it is not there, or too
   * long for this way.
   */
  getMany?(keys: readonly PhysicalKey[], call: Call): Promise<ReadonlyMap<PhysicalKey, Buffer>>;
  /**
   * As `purge`, many in one request; only where a backend can do that. Returns the keys that are gone for sure. Of the others nothing is known: they are to
   * be purged one by one.
   */
  purgeMany?(blobs: readonly DoomedBlob[], call: Call): Promise<ReadonlySet<PhysicalKey>>;
  /** All blobs with keys after `after`, in key order (bytes). */
  list(after: PhysicalKey | undefined, call: Call): AsyncIterable<StoredBlob>;
  /**
   * All else that takes space at the place: what others have put there, and parts of puts that have not ended. In an order that stays while nothing changes,
   * in pages, of which many may be empty, so that who waits sees that it goes on. Only for looking: nothing of it is ever deleted because it stands here.
   */
  listForeign(call: Call): AsyncIterable<readonly ForeignBlob[]>;
}

/** What a driver may use beside its own section of the configuration. */
export interface DriverSurroundings {
  readonly database: Database;
}

/** How a driver is opened. */
export interface DriverOpener<Config = unknown> {
  /** `storage_driver.name`. */
  readonly name: string;
  /** What tells one backend from another: the place, without credentials and without what only changes how it is spoken to. */
  settingsOf(config: Config): Readonly<Record<string, string>>;
  /**
   * Connects, and makes the container where the configuration asks for it.
   * @throws StowageError `BACKEND_UNREACHABLE`, `BACKEND_DENIED`, `BACKEND_CONTAINER_MISSING`, `CONFIG_INVALID`
   */
  open(config: Config, surroundings: DriverSurroundings, call: Call): Promise<ObjectDriver>;
  /** How many bytes more the place takes, where that can be said at no cost. */
  freeBytes?(config: Config): Promise<number>;
}

/** A driver as configurations name it. */
export interface DriverDefinition<Config = unknown> extends DriverOpener<Config> {
  /** Other names of the same. */
  readonly aliases: readonly string[];
  /** One line for `objectstorage list-drivers`. */
  readonly summary: string;
  /** The shape of `storage_driver.config`: keys as users know them; secrets become `Secret`. Unknown keys are refused (a strict object). */
  readonly schema: ZodType<Config>;
  /** Whether the places of two configurations are not one, and yet what is stored at one lies within the other. */
  isOverlap?(one: Config, other: Config): boolean;
}
