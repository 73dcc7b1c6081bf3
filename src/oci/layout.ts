import { z } from "zod";
import type { Limits } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import type { Call } from "../runtime/index.ts";
import { digestAlgorithm, digestHex, findDigest } from "./digest.ts";
import { readSmallFile, type SourceFiles, unreadable } from "./files.ts";
import { parseJson } from "./json.ts";
import { descriptorSchema } from "./manifest.ts";
import { isIndexType, isManifestType, isSchema1Type } from "./media-types.ts";
import { formatPlatform } from "./platform.ts";
import { findFullTag } from "./reference.ts";
import { isAttestation, type ManifestReader, resolveImage } from "./resolve.ts";
import type { Descriptor, ImageSource, LayerSource } from "./types.ts";

const REF_NAME = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME = "io.containerd.image.name";

const layoutFileSchema = z.object({ imageLayoutVersion: z.string() });
const indexSchema = z.object({ schemaVersion: z.literal(2), manifests: z.array(descriptorSchema).nullish() });

/** Schema 1 is known, so that it can be called what it is. */
const knownTypes = [isIndexType, isManifestType, isSchema1Type];

/** Whether the files are an OCI layout. */
export async function isLayout(files: SourceFiles, call: Call): Promise<boolean> {
  return (await files.size("oci-layout", call)) !== undefined;
}

/**
 * An OCI image layout, in a directory or an archive.
 * @see OCI image-spec, image-layout.md
 * @param ref which of its images: a tag, the full name that containerd writes, or a digest
 * @throws StowageError `IMAGE_SOURCE_UNREADABLE`, `IMAGE_MANIFEST_INVALID`, `IMAGE_NOT_FOUND`, `IMAGE_AMBIGUOUS`
 */
export async function openLayout(
  files: SourceFiles,
  ref: string | undefined,
  description: string,
  limits: Limits,
  call: Call,
): Promise<ImageSource> {
  const version = await readSmallFile(files, "oci-layout", limits.manifestBytesMax, call);
  if (version === undefined) {
    throw unreadable(files.description, "it is no OCI layout: there is no file oci-layout in it");
  }
  const { imageLayoutVersion } = parseJson(version, layoutFileSchema, "the file oci-layout");
  if (imageLayoutVersion !== "1.0.0") {
    throw unreadable(files.description, `layout version ${imageLayoutVersion.slice(0, 50)} is not known, only 1.0.0`);
  }
  const index = await readSmallFile(files, "index.json", limits.manifestBytesMax, call);
  if (index === undefined) throw unreadable(files.description, "it is no OCI layout: there is no index.json in it");
  const entries = (parseJson(index, indexSchema, "index.json").manifests ?? []).filter(
    (entry) => knownTypes.some((isType) => isType(entry.mediaType)) && !isAttestation(entry),
  );
  const chosen = select(entries, ref, description);
  const name = chosen[0]?.annotations?.[CONTAINERD_NAME] ?? chosen[0]?.annotations?.[REF_NAME] ?? "";

  const reader: ManifestReader = {
    async read(descriptor, _what, readCall) {
      const bytes = await readSmallFile(files, blobPath(descriptor), limits.manifestBytesMax, readCall);
      if (bytes === undefined) throw new StowageError("IMAGE_BLOB_MISSING", { digest: descriptor.digest });
      return bytes;
    },
    has: async (descriptor, hasCall) => (await files.size(blobPath(descriptor), hasCall)) !== undefined,
  };
  return {
    description,
    async resolve(platform, resolveCall) {
      const root = { kind: "entries", entries: chosen } as const;
      const image = await resolveImage(root, platform, reader, limits.layersMax, resolveCall);
      // A mere tag (`3.20`) names no repository.
      return { ...image, suggestedName: /[:/]/.test(name) ? findFullTag(name) : undefined };
    },
    layers: layersOf(files, blobPath),
    [Symbol.asyncDispose]: () => files[Symbol.asyncDispose](),
  };
}

/** Layers that are files: `pathOf` says under which name, or `undefined` if nowhere. */
export function layersOf(files: SourceFiles, pathOf: (layer: Descriptor) => string | undefined): LayerSource {
  const check = (layer: Descriptor, actual: number) => {
    if (actual === layer.size) return;
    throw new StowageError("IMAGE_SIZE_MISMATCH", { what: `layer ${layer.digest}`, expected: layer.size, actual });
  };
  return {
    isAuthority: false,
    async open(layer, call) {
      const path = pathOf(layer);
      const file = path === undefined ? undefined : await files.open(path, call);
      if (file === undefined) throw new StowageError("IMAGE_BLOB_MISSING", { digest: layer.digest });
      if (file.size !== layer.size) file.body.destroy();
      check(layer, file.size);
      return file.body;
    },
    async openFile(layer, call) {
      const path = pathOf(layer);
      const range = path === undefined ? undefined : await files.openRange(path, call);
      if (range === undefined) throw new StowageError("IMAGE_BLOB_MISSING", { digest: layer.digest });
      if (range.size !== layer.size) await range[Symbol.asyncDispose]();
      check(layer, range.size);
      return { ...range, description: files.description };
    },
    async has(layer, call) {
      const path = pathOf(layer);
      return path !== undefined && (await files.size(path, call)) !== undefined;
    },
    recheck: async () => false,
  };
}

function blobPath({ digest }: Descriptor): string {
  return `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
}

/** The entries that `ref` means: one, or several that are platforms of one image. */
function select(entries: readonly Descriptor[], ref: string | undefined, description: string): readonly Descriptor[] {
  const namesOf = ({ annotations }: Descriptor) =>
    [annotations?.[REF_NAME], annotations?.[CONTAINERD_NAME]].filter((name) => name !== undefined);
  let found = entries;
  if (ref !== undefined) {
    const digest = findDigest(ref.replace(/^@/, ""));
    found = entries.filter((entry) => entry.digest === digest || namesOf(entry).includes(ref));
    const fullTag = findFullTag(ref);
    if (found.length === 0 && fullTag !== undefined) {
      found = entries.filter((entry) => namesOf(entry).some((name) => findFullTag(name) === fullTag));
    }
  }
  // Beside images that can be read, those of schema 1 are not meant.
  const readable = found.filter(({ mediaType }) => !isSchema1Type(mediaType));
  if (readable.length > 0) found = readable;
  // Of several names of one image the first counts.
  const byDigest = new Map(found.toReversed().map((entry) => [entry.digest, entry]));
  if (byDigest.size === 0) {
    const names = [...new Set(entries.flatMap(namesOf))].slice(0, 20);
    const hint = names.length > 0 ? `it has: ${names.join(", ")}` : undefined;
    throw new StowageError("IMAGE_NOT_FOUND", { image: description }, hint === undefined ? {} : { hint });
  }
  if (byDigest.size === 1) return [...byDigest.values()];
  const images = [...byDigest.values()].reverse();
  const platforms = new Set(images.map(({ platform }) => platform && formatPlatform(platform)));
  const names = new Set(images.map((entry) => namesOf(entry)[0]));
  if (names.size === 1 && platforms.size === images.length && !platforms.has(undefined)) return images;
  throw new StowageError(
    "IMAGE_AMBIGUOUS",
    { image: description, candidates: images.slice(0, 50).map((entry) => namesOf(entry)[0] ?? entry.digest) },
    { hint: "name one: SOURCE:REF, where REF is a tag, a full name or a digest" },
  );
}
