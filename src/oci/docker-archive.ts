import { createHash } from "node:crypto";
import { z } from "zod";
import type { Limits } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import type { Call } from "../runtime/index.ts";
import { digestHex, digestOf, findDigest } from "./digest.ts";
import { readSmallFile, type SourceFiles, unreadable } from "./files.ts";
import { parseJson } from "./json.ts";
import { isLayout, layersOf, openLayout } from "./layout.ts";
import { pairLayers, parseConfig } from "./manifest.ts";
import { mediaTypes } from "./media-types.ts";
import { formatPlatform, platformRank } from "./platform.ts";
import { findFullTag } from "./reference.ts";
import type { Descriptor, DiffId, Digest, ImageSource, ResolvedImage } from "./types.ts";

const archiveManifestSchema = z.array(
  z.object({
    Config: z.string(),
    RepoTags: z.array(z.string()).nullish(),
    Layers: z.array(z.string()).nullish(),
  }),
);
type ArchivedImage = z.output<typeof archiveManifestSchema>[number];

/**
 * What `docker save` writes. Where the archive is an OCI layout as well (Docker 25 and later), that view is taken: it has the real
 * manifest. Older archives have none, so a Docker version-2 manifest is computed over the blobs as they lie in the archive.
 * @throws StowageError `IMAGE_SOURCE_UNREADABLE`, `IMAGE_MANIFEST_INVALID`, `IMAGE_NOT_FOUND`, `IMAGE_AMBIGUOUS`
 */
export async function openDockerArchive(
  files: SourceFiles,
  ref: string | undefined,
  description: string,
  limits: Limits,
  call: Call,
): Promise<ImageSource> {
  if (await isLayout(files, call)) return openLayout(files, ref, description, limits, call);
  const bytes = await readSmallFile(files, "manifest.json", limits.manifestBytesMax, call);
  if (bytes === undefined) {
    throw unreadable(files.description, "it is no Docker archive: there is neither manifest.json nor oci-layout in it");
  }
  const { image, name } = select(parseJson(bytes, archiveManifestSchema, "manifest.json"), ref, description);
  const paths = new Map<Digest, string>();
  return {
    description,
    async resolve(platform, resolveCall) {
      const resolved = await resolveArchived(files, image, paths, limits, resolveCall);
      const has = resolved.config.platform;
      if (platform !== undefined && platformRank(platform, has) === undefined) {
        throw new StowageError("IMAGE_PLATFORM_MISSING", {
          platform: formatPlatform(platform),
          available: [formatPlatform(has)],
        });
      }
      return { ...resolved, suggestedName: name === undefined ? undefined : findFullTag(name) };
    },
    layers: layersOf(files, (layer) => paths.get(layer.digest)),
    [Symbol.asyncDispose]: () => files[Symbol.asyncDispose](),
  };
}

function select(
  images: readonly ArchivedImage[],
  ref: string | undefined,
  description: string,
): { image: ArchivedImage; name: string | undefined } {
  const tags = images.flatMap((image) => image.RepoTags ?? []);
  const wanted = ref === undefined ? undefined : (findFullTag(ref) ?? ref);
  const found = images.flatMap((image) => {
    if (wanted === undefined) return [{ image, name: image.RepoTags?.[0] }];
    const name = (image.RepoTags ?? []).find((tag) => tag === ref || findFullTag(tag) === wanted);
    return name === undefined && !isNamedById(image, ref) ? [] : [{ image, name: name ?? image.RepoTags?.[0] }];
  });
  const [first] = found;
  if (first === undefined) {
    const hint = tags.length > 0 ? `it has: ${tags.slice(0, 20).join(", ")}` : undefined;
    throw new StowageError("IMAGE_NOT_FOUND", { image: description }, hint === undefined ? {} : { hint });
  }
  if (new Set(found.map(({ image }) => image.Config)).size > 1) {
    const candidates = found.slice(0, 50).map(({ image, name }) => name ?? image.Config);
    const hint = "name one: docker-archive:FILE:REF, where REF is a tag or an image id";
    throw new StowageError("IMAGE_AMBIGUOUS", { image: description, candidates }, { hint });
  }
  return first;
}

/** An image without tags is named by its id, the digest of its configuration. */
function isNamedById(image: ArchivedImage, ref: string | undefined): boolean {
  const digest = ref === undefined ? undefined : findDigest(ref.includes(":") ? ref : `sha256:${ref}`);
  return digest !== undefined && claimedHex(image.Config) === digestHex(digest);
}

/** The digest that a configuration's file name claims, if it does: `HEX.json`, `blobs/sha256/HEX`. */
function claimedHex(path: string): string | undefined {
  return /(?:^|\/)([0-9a-f]{64})(?:\.json)?$/.exec(path)?.[1];
}

async function resolveArchived(
  files: SourceFiles,
  image: ArchivedImage,
  paths: Map<Digest, string>,
  limits: Limits,
  call: Call,
): Promise<Omit<ResolvedImage, "suggestedName">> {
  const configPath = cleanPath(image.Config);
  const raw = await readSmallFile(files, configPath, limits.manifestBytesMax, call);
  if (raw === undefined) throw new StowageError("IMAGE_BLOB_MISSING", { digest: image.Config.slice(0, 200) });
  const imageId = digestOf(raw);
  const claimed = claimedHex(image.Config);
  if (claimed !== undefined && claimed !== digestHex(imageId)) {
    const what = `image configuration ${configPath}`;
    throw new StowageError("IMAGE_DIGEST_MISMATCH", { what, expected: `sha256:${claimed}`, actual: imageId });
  }
  const { config, diffIds } = parseConfig(raw);
  const layerPaths = image.Layers ?? [];
  if (layerPaths.length > limits.layersMax) {
    throw new StowageError("LIMIT_EXCEEDED", {
      limit: "layersMax",
      max: limits.layersMax,
      found: layerPaths.length,
    });
  }
  if (layerPaths.length !== diffIds.length) {
    throw new StowageError("IMAGE_MANIFEST_INVALID", {
      reason: `manifest.json has ${layerPaths.length} layers, the image configuration names ${diffIds.length} diffIDs`,
    });
  }
  const descriptors: Descriptor[] = [];
  for (const [at, layerPath] of layerPaths.entries()) {
    const path = cleanPath(layerPath);
    const descriptor = await describeLayer(files, path, diffIds[at] as DiffId, call);
    if (!paths.has(descriptor.digest)) paths.set(descriptor.digest, path);
    descriptors.push(descriptor);
  }
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: mediaTypes.dockerManifest,
      config: { mediaType: mediaTypes.dockerConfig, size: raw.length, digest: imageId },
      layers: descriptors.map(({ mediaType, size, digest }) => ({ mediaType, size, digest })),
    }),
  );
  return {
    digest: digestOf(manifest),
    mediaType: mediaTypes.dockerManifest,
    manifest,
    index: undefined,
    imageId,
    config,
    layers: pairLayers(descriptors, diffIds),
  };
}

/**
 * The descriptor of a layer that has none. A plain tar is its own blob, so the diffID that the configuration claims is the blob's digest
 * too (whoever reads the layer verifies it); a compressed one must be read for its digest.
 */
async function describeLayer(files: SourceFiles, path: string, diffId: DiffId, call: Call): Promise<Descriptor> {
  const file = await files.open(path, call);
  if (file === undefined) throw new StowageError("IMAGE_BLOB_MISSING", { digest: path.slice(0, 200) });
  const hash = createHash("sha256");
  let compression: "gzip" | "zstd" | undefined;
  let isFirst = true;
  for await (const chunk of file.body as AsyncIterable<Buffer>) {
    if (isFirst) compression = sniff(chunk);
    isFirst = false;
    if (compression === undefined) break;
    hash.update(chunk);
  }
  return compression === undefined
    ? { mediaType: mediaTypes.dockerLayer, digest: diffId as string as Digest, size: file.size }
    : {
        mediaType: `${mediaTypes.dockerLayer}.${compression}`,
        digest: `sha256:${hash.digest("hex")}` as Digest,
        size: file.size,
      };
}

function sniff(start: Buffer): "gzip" | "zstd" | undefined {
  if (start[0] === 0x1f && start[1] === 0x8b) return "gzip";
  return start.length >= 4 && start.readUInt32LE() === 0xfd2fb528 ? "zstd" : undefined;
}

function cleanPath(path: string): string {
  return path.replace(/^(?:\.\/+)+/, "");
}
