import type { LayerCompression } from "./types.ts";

/** @see OCI image-spec, media-types.md; distribution, manifest-v2-2.md */
export const mediaTypes = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  ociConfig: "application/vnd.oci.image.config.v1+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar",
} as const;

/** Everything that is asked of a registry: without the newer types it converts to schema 1, or picks a platform by itself. */
export const manifestAccept: string = [
  mediaTypes.ociIndex,
  mediaTypes.ociManifest,
  mediaTypes.dockerList,
  mediaTypes.dockerManifest,
].join(", ");

export function isIndexType(mediaType: string): boolean {
  return mediaType === mediaTypes.ociIndex || mediaType === mediaTypes.dockerList;
}

export function isManifestType(mediaType: string): boolean {
  return mediaType === mediaTypes.ociManifest || mediaType === mediaTypes.dockerManifest;
}

/** `application/vnd.docker.distribution.manifest.v1+json` and the signed form, `+prettyjws`. */
export function isSchema1Type(mediaType: string): boolean {
  return mediaType.startsWith("application/vnd.docker.distribution.manifest.v1+");
}

/**
 * Whether a configuration of this type belongs to a container image. In Docker manifests some more are seen in the wild.
 * @see https://github.com/distribution/distribution/issues/1621
 */
export function isImageConfigType(mediaType: string, manifestType: string): boolean {
  if (mediaType === mediaTypes.ociConfig || mediaType === mediaTypes.dockerConfig) return true;
  const seen = ["application/octet-stream", "application/json", "text/html"];
  return manifestType === mediaTypes.dockerManifest && seen.includes(mediaType);
}

/** What a layer's media type says. */
export interface LayerType {
  /** `undefined`: Docker's "uncompressed" types are sometimes compressed, so the bytes decide. */
  readonly compression: LayerCompression | undefined;
  readonly isForeign: boolean;
}

const oci = "application/vnd.oci.image.layer.";
const docker = "application/vnd.docker.image.rootfs.";
const layerTypes: ReadonlyMap<string, LayerType> = new Map([
  [`${oci}v1.tar`, { compression: "none", isForeign: false }],
  [`${oci}v1.tar+gzip`, { compression: "gzip", isForeign: false }],
  [`${oci}v1.tar+zstd`, { compression: "zstd", isForeign: false }],
  [`${oci}nondistributable.v1.tar`, { compression: "none", isForeign: true }],
  [`${oci}nondistributable.v1.tar+gzip`, { compression: "gzip", isForeign: true }],
  [`${oci}nondistributable.v1.tar+zstd`, { compression: "zstd", isForeign: true }],
  [`${docker}diff.tar`, { compression: undefined, isForeign: false }],
  [`${docker}diff.tar.gzip`, { compression: "gzip", isForeign: false }],
  [`${docker}diff.tar.zstd`, { compression: "zstd", isForeign: false }],
  [`${docker}diff.tar+zstd`, { compression: "zstd", isForeign: false }],
  [`${docker}foreign.diff.tar`, { compression: undefined, isForeign: true }],
  [`${docker}foreign.diff.tar.gzip`, { compression: "gzip", isForeign: true }],
]);

/** What `mediaType` says of a layer; `undefined` if it is no layer of a container image. */
export function findLayerType(mediaType: string): LayerType | undefined {
  return layerTypes.get(mediaType);
}
