import type { Digest, LayerSource } from "../oci/index.ts";
import type { Call, Clock, Progress } from "../runtime/index.ts";
import type { CacheFiles } from "./cache-files.ts";

export interface LayerCacheOptions {
  /** `<tmp_dir>/anchore_layercache`; made if it is not there, with its parents. */
  readonly directory: string;
  /** What all that lies in the directory may take up on the disk, at every instant and for all processes together. */
  readonly bytesMax: number;
  /** Told once for each kind of trouble: what is wrong, and that layers are read without the cache. */
  readonly tell: (text: string) => void;
  /** Left out: the system's. */
  readonly clock?: Clock;
  /** Left out: the system's. */
  readonly files?: CacheFiles;
}

/** A bounded store of layer blobs on disk, shared by all processes that name the same directory. */
export interface LayerCache extends AsyncDisposable {
  /** A source that looks into the cache before it asks `source`, and keeps what it read. Sources that are local already are passed through. */
  before(source: LayerSource): CachedLayers;
  /** @throws StowageError `LAYER_CACHE_UNUSABLE`, as do all below */
  stats(call: Call): Promise<CacheStats>;
  /** The least recently used first. */
  entries(call: Call): AsyncIterable<CacheEntry>;
  /** Drops entries, the least recently used first, until what lies on the disk is at most `bytesMax`; those in use stay. */
  trim(bytesMax: number, call: Call): Promise<CacheRemoval>;
  /** Reads every entry, drops those that are damaged. */
  verify(progress: Progress, call: Call): Promise<CacheVerification>;
  /** Drops all that is not in use. */
  clear(call: Call): Promise<CacheRemoval>;
}

/** Layers of one image source, with the cache before it. Counts what it has served. */
export interface CachedLayers extends LayerSource {
  /** Layers that came from the cache and not from the source. */
  readonly hits: number;
  /** Their bytes. */
  readonly bytesSaved: number;
}

export interface CacheStats {
  readonly directory: string;
  readonly bytesMax: number;
  readonly entries: number;
  /** Of the entries' blobs. */
  readonly blobBytes: number;
  /** All that counts against the limit: entries and foreign files in whole blocks, room reserved for downloads, and what the index may take. */
  readonly bytesCounted: number;
  /** Of {@link bytesCounted}: room for downloads that are under way. */
  readonly bytesReserved: number;
  /** Of {@link bytesCounted}: files that the cache did not make. It never removes them. */
  readonly bytesForeign: number;
  /** Entries that a reader has open. */
  readonly entriesInUse: number;
  /** When the entry that is used least recently was used; `undefined` without entries. */
  readonly oldestUse: Date | undefined;
}

export interface CacheEntry {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly lastUsed: Date;
  /** How often it was served since it came. */
  readonly hits: number;
  readonly isInUse: boolean;
}

export interface CacheRemoval {
  readonly entries: number;
  /** Of their blobs. */
  readonly bytes: number;
  /** Entries that had to stay because a reader has them open. */
  readonly entriesInUse: number;
}

export interface CacheVerification {
  readonly entries: number;
  readonly bytes: number;
  /** Dropped. */
  readonly damaged: readonly { readonly digest: Digest; readonly reason: string }[];
  /** Paths in the directory that the cache did not make and leaves alone; the first thousand. */
  readonly foreign: readonly string[];
}
