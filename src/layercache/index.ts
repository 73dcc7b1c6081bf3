/**
 * Layer cache: blobs that a registry sent, kept on disk by their digest.
 *
 * Promises: what lies in its directory never takes up more than the limit, not while downloading, not with several processes, not after a crash;
 * nothing is served that its requester may not read at the source; an entry whose bytes are wrong is dropped and fetched again; trouble with the disk
 * never fails an analysis.
 */
export { openLayerCache } from "./layer-cache.ts";
export type {
  CachedLayers,
  CacheEntry,
  CacheRemoval,
  CacheStats,
  CacheVerification,
  LayerCache,
  LayerCacheOptions,
} from "./types.ts";
