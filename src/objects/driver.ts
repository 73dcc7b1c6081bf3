import type { Readable } from "node:stream";
import type { Call } from "../runtime/index.ts";

declare const brand: unique symbol;

/** Name of stored bytes at a backend: random, chosen by the store, never reused. Made by `createPhysicalKey` and `parsePhysicalKey` only. */
export type PhysicalKey = string & { readonly [brand]: "PhysicalKey" };

export interface DriverCapabilities {
  /** The largest blob it takes, in bytes. */
  readonly objectBytesMax: number;
  /** A put onto an existing key fails, whatever races. */
  readonly exclusivePut: boolean;
  /** It reports the SHA-256 of what it really stored; otherwise the store reads back. */
  readonly serverDigest: boolean;
  /** How long a listing may lag behind, in milliseconds. */
  readonly listLagMs: number;
}

/** A body that can be opened again from its start for a retry. The opener owns and ends the stream. */
export interface BodySource {
  open(call: Call): Promise<Readable>;
  /** Exact length in bytes when known. */
  readonly sizeBytes?: number;
}

export interface StoredBlob {
  readonly key: PhysicalKey;
  readonly sizeBytes: number;
  /** `sha256:…` as computed by the server, where `serverDigest`. */
  readonly digest?: string;
}

/** First and last byte, both inclusive. */
export interface ByteRange {
  readonly first: number;
  readonly last: number;
}

/** Bytes by physical key. Knows no objects, codecs or pointers. */
export interface ObjectDriver extends AsyncDisposable {
  readonly name: string;
  readonly capabilities: DriverCapabilities;
  /**
   * Stores the body under a new key: atomic, durable when it resolves, never overwrites.
   * @throws StowageError `BACKEND_KEY_EXISTS`, `BACKEND_UNREACHABLE`, `BACKEND_FAILED`
   */
  put(key: PhysicalKey, body: BodySource, call: Call): Promise<StoredBlob>;
  /** @throws StowageError `BACKEND_KEY_MISSING` before the first byte when nothing is there */
  get(key: PhysicalKey, range: ByteRange | undefined, call: Call): Promise<Readable>;
  /** Deleting what is not there succeeds. */
  delete(key: PhysicalKey, call: Call): Promise<void>;
  /** All blobs with keys after `after`, in key order (bytes). */
  list(after: PhysicalKey | undefined, call: Call): AsyncIterable<StoredBlob>;
}
