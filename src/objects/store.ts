import type { Readable } from "node:stream";
import type { Transaction } from "../db/index.ts";
import type { StowageError } from "../errors/index.ts";
import type { Call } from "../runtime/index.ts";
import type { Copies } from "./copies.ts";
import type { BodySource } from "./driver.ts";
import type { CompactionReport } from "./rows/compact.ts";
import type { Reclaimable } from "./rows/reaper.ts";
import type { ScrubOptions, ScrubReport } from "./scrub.ts";
import type { UsageReport } from "./usage.ts";

/** The logical name of an object. */
export interface ObjectRef {
  readonly account: string;
  readonly bucket: string;
  readonly key: string;
}

export function isSameObject(one: ObjectRef, other: ObjectRef): boolean {
  return one.account === other.account && one.bucket === other.bucket && one.key === other.key;
}

/** For people. */
export function nameOf({ account, bucket, key }: ObjectRef): string {
  return `${account}/${bucket}/${key}`;
}

/** What is to be stored. */
export interface ObjectBody extends BodySource {
  /** It would not become smaller: it is stored as it is, whatever the configuration says. */
  readonly isCompressed?: boolean;
}

/** A stored body that nobody sees yet: durable and proven. Publish it in a transaction, or leave it to the reaper. */
export interface StagedObject {
  readonly ref: ObjectRef;
  readonly locationId: number;
  readonly contentDigest: string;
  readonly contentBytes: number;
  readonly storedBytes: number;
}

/** A visible version of an object. */
export interface ObjectVersion {
  readonly ref: ObjectRef;
  readonly version: number;
  readonly locationId: number;
  readonly contentDigest: string;
  readonly contentBytes: number;
  readonly storedBytes: number;
}

/** Bytes that have gone from a backend. */
export interface Reclaimed {
  readonly blobs: number;
  /** Of those whose size is known. */
  readonly bytes: number;
  /** Of these, those whose size nobody recorded: whoever wrote them never came to an end. */
  readonly unmeasured: number;
}

export interface ReapReport {
  readonly blobsDeleted: number;
  readonly bytesDeleted: number;
  /** The same for each backend where something was deleted. */
  readonly backends: readonly (Reclaimed & { readonly backend: string })[];
  /** Backends whose bytes could not be deleted, with the first reason of each. */
  readonly failures: readonly { readonly backend: string; readonly error: StowageError }[];
  /** Whether the pass ended because of its bound, not because nothing was left. */
  readonly isMoreLeft: boolean;
}

export interface ObjectStore {
  /** Stores the body at a new location: intent recorded first, then the bytes, then the proof, or all of them at once. Invisible until published. */
  stage(ref: ObjectRef, body: ObjectBody, call: Call): Promise<StagedObject>;
  /**
   * Makes staged objects visible in the caller's transaction; what they replace is retired.
   * @throws StowageError `OBJECT_LEASE_LOST` when the reaper has taken one of them: stage again
   */
  publish(tx: Transaction, staged: readonly StagedObject[]): Promise<readonly ObjectVersion[]>;
  /**
   * The visible version as a stream; the digests of content and stored bytes are checked while it is read, and a stream never ends without an
   * error if a byte was wrong. Where the location is damaged or missing, another one of the same content that is still there is read.
   * @throws StowageError `OBJECT_NOT_FOUND`, `OBJECT_DIGEST_MISMATCH`, `BACKEND_KEY_MISSING`, `BACKEND_UNKNOWN`
   */
  get(ref: ObjectRef, call: Call): Promise<{ readonly version: ObjectVersion; readonly body: Readable }>;
  find(ref: ObjectRef, call: Call): Promise<ObjectVersion | undefined>;
  /**
   * Lets a version lie at a staged copy of it instead of where it lies; the place it leaves is retired. False when the object has changed or moved.
   * @throws StowageError `OBJECT_LEASE_LOST`
   */
  relocate(tx: Transaction, version: ObjectVersion, copy: StagedObject): Promise<boolean>;
  /** Removes the pointer and retires its location. False when there is none. */
  retire(tx: Transaction, ref: ObjectRef): Promise<boolean>;
  /** A bounded pass of the reaper: the only thing that deletes bytes. */
  reap(limit: number, call: Call): Promise<ReapReport>;
}

/** Objects that lie where new ones do not go. */
export interface Elsewhere {
  readonly backendId: number;
  /** For people. */
  readonly place: string;
  readonly isConfigured: boolean;
  readonly objects: number;
}

export interface RepairOptions {
  /** What becomes of a visible object whose bytes are lost: true when they will be made anew. */
  readonly onLost: (ref: ObjectRef, call: Call) => Promise<boolean>;
}

/** What keeps a store healthy. */
export interface StoreMaintenance {
  /** Backends that the configuration leads to, without what lies in the database itself. */
  readonly reachable: readonly number[];
  /** Copies of objects at other backends, for migrations. */
  readonly copies: Copies;
  /** What is kept, where, and what the backends really hold; these are listed only when `look` is true. */
  usage(look: boolean, call: Call): Promise<UsageReport>;
  /** What the reaper would take now, and what later. */
  reclaimable(call: Call): Promise<readonly (Reclaimable & { readonly place: string })[]>;
  /** Reads everything back, or a share of it; goes on with a scrub that was interrupted. */
  scrub(options: Omit<ScrubOptions, "repair"> & { readonly repair?: RepairOptions }, call: Call): Promise<ScrubReport>;
  /** Gives the free space of the object tables back to the operating system. Each table is locked while it is written anew. */
  compact(call: Call): Promise<CompactionReport>;
  /** Makes all configured backends this database's, and no copy's of it. Returns their places. */
  claim(call: Call): Promise<readonly string[]>;
  elsewhere(call: Call): Promise<readonly Elsewhere[]>;
  /** Places of the configuration whose new objects go elsewhere since an online migration. */
  redirected(call: Call): Promise<readonly { readonly place: string; readonly goesTo: string }[]>;
}
