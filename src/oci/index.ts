/**
 * OCI: references, digests, platforms, and sources of images (registry, OCI layout, archives).
 *
 * Promises: what `ImageSource.resolve` returns is verified (manifest and configuration have the digests and sizes that name them) and
 * pinned, so that a tag that moves meanwhile changes nothing. Layer blobs are handed out as they are stored: their reader verifies them.
 * Nothing of an image is written under a name that it chose, no link is followed out of a layout, no `urls` of a descriptor are asked,
 * credentials go only to the host that they belong to, and every answer is bounded in size and time.
 */
export { digestAlgorithm, digestHex, parseDigest } from "./digest.ts";
export { formatPlatform, parsePlatform } from "./platform.ts";
export { parseReference, type Reference } from "./reference.ts";
export { listTags, openSource } from "./source.ts";
export type { SourceOptions } from "./source-options.ts";
export type {
  Descriptor,
  DiffId,
  Digest,
  ImageConfig,
  ImageLayer,
  ImageSource,
  LayerCompression,
  LayerFile,
  LayerSource,
  Platform,
  ResolvedImage,
} from "./types.ts";
