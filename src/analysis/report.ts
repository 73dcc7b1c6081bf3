import type { Distribution } from "../layer/index.ts";
import type { DiffId, Digest } from "../oci/index.ts";

/** What happened to one layer of an analysed image. */
export interface LayerReport {
  readonly blobDigest: Digest;
  readonly diffId: DiffId;
  readonly mediaType: string;
  readonly blobBytes: number;
  /** `analyzed`: read now; `reused`: a stored document served; `notFetched`: foreign, so nothing is known of it. */
  readonly outcome: "analyzed" | "reused" | "notFetched";
  /** Tar entries; undefined when not fetched. */
  readonly entries: number | undefined;
  /** Bytes of the blob that were read just now. */
  readonly bytesRead: number;
  readonly durationMs: number;
}

/** What a layer cache has saved. */
export interface LayerCacheUse {
  /** Layers that came from the cache and not from the registry. */
  readonly hits: number;
  /** Their bytes. */
  readonly bytesSaved: number;
}

/** What an analysis found and cost. */
export interface AnalysisReport {
  readonly digest: Digest;
  readonly imageId: Digest;
  readonly fullTag: string | undefined;
  readonly platform: string;
  readonly distribution: Distribution | undefined;
  readonly layers: readonly LayerReport[];
  /** Names in the squashed view, directories included. */
  readonly files: number;
  /** By package type, sorted by name. */
  readonly packages: Readonly<Record<string, number>>;
  readonly bytesRead: number;
  /** Left out where no layer cache stood before the source. */
  readonly layerCache?: LayerCacheUse;
  /** Bytes newly stored in the object store. */
  readonly bytesStored: number;
  readonly notes: number;
  /** The image was there already, analysed by the same analyser: nothing was done. */
  readonly wasKnown: boolean;
  readonly durationMs: number;
}
