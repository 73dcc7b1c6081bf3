import { z } from "zod";
import { StowageError } from "../errors/index.ts";
import { findDigest, parseDiffId } from "./digest.ts";
import { parseJson } from "./json.ts";
import {
  findLayerType,
  isImageConfigType,
  isIndexType,
  isManifestType,
  isSchema1Type,
  mediaTypes,
} from "./media-types.ts";
import { normalizePlatform } from "./platform.ts";
import type { Descriptor, DiffId, ImageConfig, ImageLayer, Platform } from "./types.ts";

// In every document `null` means absent: Go writes it for empty values.
const text = z.string().nullish();
const texts = z.array(z.string()).nullish();

const platformSchema = z.object({ os: z.string(), architecture: z.string(), variant: text, "os.version": text });

/** @see OCI image-spec, descriptor.md. `z.int()` refuses sizes that a double can't hold. */
export const descriptorSchema = z
  .object({
    mediaType: z.string(),
    digest: z.string().transform((value, context) => {
      const digest = findDigest(value);
      if (digest !== undefined) return digest;
      context.addIssue({ code: "custom", message: "not a valid sha256 or sha512 digest" });
      return z.NEVER;
    }),
    size: z.int().nonnegative(),
    urls: texts,
    annotations: z.record(z.string(), z.string()).nullish(),
    platform: platformSchema.nullish(),
  })
  .transform(
    (value): Descriptor => ({
      mediaType: value.mediaType,
      digest: value.digest,
      size: value.size,
      ...(value.urls ? { urls: value.urls } : {}),
      ...(value.annotations ? { annotations: value.annotations } : {}),
      ...(value.platform ? { platform: toPlatform(value.platform) } : {}),
    }),
  );

const indexSchema = z.object({ schemaVersion: z.literal(2), manifests: z.array(descriptorSchema) });
const manifestSchema = z.object({
  schemaVersion: z.literal(2),
  config: descriptorSchema,
  layers: z.array(descriptorSchema).nullish(),
});

/** The body of a manifest request, understood. */
export type ParsedManifest =
  | { readonly kind: "index"; readonly mediaType: string; readonly manifests: readonly Descriptor[] }
  | {
      readonly kind: "manifest";
      readonly mediaType: string;
      readonly config: Descriptor;
      readonly layers: readonly Descriptor[];
    };

/**
 * Parses an index or a manifest of a container image.
 * @param announced the media type of the descriptor or of the answer that led here; `undefined` or a generic type says nothing
 * @throws StowageError `IMAGE_MANIFEST_INVALID`, `IMAGE_SCHEMA1_UNSUPPORTED`, `IMAGE_NOT_A_CONTAINER_IMAGE`
 */
export function parseManifest(bytes: Uint8Array, announced: string | undefined): ParsedManifest {
  const head = parseJson(bytes, z.looseObject({ schemaVersion: z.unknown(), mediaType: text }), "the manifest");
  const keys = new Set(Object.keys(head).map((key) => key.toLowerCase()));
  const mediaType = decideType(head.mediaType ?? undefined, announced, keys, head.schemaVersion);
  if (isSchema1Type(mediaType)) {
    throw new StowageError(
      "IMAGE_SCHEMA1_UNSUPPORTED",
      { mediaType },
      { hint: "push the image again with a current tool, for example: skopeo copy --format v2s2" },
    );
  }
  // A document that is both would be one image to one tool and another to the next. Go matches names whatever their case.
  const isBoth = keys.has("manifests") && ["config", "layers", "fslayers"].some((key) => keys.has(key));
  if (isBoth) {
    throw new StowageError("IMAGE_MANIFEST_INVALID", { reason: "the document is both an index and a manifest" });
  }
  if (isIndexType(mediaType)) {
    return { kind: "index", mediaType, manifests: parseJson(bytes, indexSchema, "the index").manifests };
  }
  if (!isManifestType(mediaType)) throw notAnImage(mediaType);
  const manifest = parseJson(bytes, manifestSchema, "the manifest");
  const layers = manifest.layers ?? [];
  if (!isImageConfigType(manifest.config.mediaType, mediaType)) throw notAnImage(manifest.config.mediaType);
  for (const layer of layers) if (findLayerType(layer.mediaType) === undefined) throw notAnImage(layer.mediaType);
  return { kind: "manifest", mediaType, config: manifest.config, layers };
}

/** The type that a manifest says it has, which must not contradict the one announced; else the announced; else what its shape says. */
function decideType(
  own: string | undefined,
  announced: string | undefined,
  keys: ReadonlySet<string>,
  schemaVersion: unknown,
): string {
  const known = (type: string | undefined) =>
    type !== undefined && (isIndexType(type) || isManifestType(type) || isSchema1Type(type));
  if (own !== undefined && known(announced) && own !== announced) {
    throw new StowageError("IMAGE_MANIFEST_INVALID", {
      reason: `announced as ${announced} but says of itself that it is ${own.slice(0, 200)}`,
    });
  }
  if (own !== undefined) return own;
  if (schemaVersion === 1) return "application/vnd.docker.distribution.manifest.v1+json";
  if (announced !== undefined && known(announced)) return announced;
  return keys.has("manifests") ? mediaTypes.ociIndex : mediaTypes.ociManifest;
}

const configSchema = z.object({
  architecture: text,
  os: text,
  variant: text,
  "os.version": text,
  created: text,
  author: text,
  config: z
    .object({
      User: text,
      Env: texts,
      Entrypoint: texts,
      Cmd: texts,
      Labels: z.record(z.string(), z.string()).nullish(),
      ExposedPorts: z.record(z.string(), z.unknown()).nullish(),
    })
    .nullish(),
  rootfs: z.object({ diff_ids: texts }).nullish(),
  history: z
    .array(z.object({ created: text, created_by: text, comment: text, empty_layer: z.boolean().nullish() }))
    .nullish(),
});

/**
 * Parses an image configuration and takes out its diffIDs.
 * @throws StowageError `IMAGE_MANIFEST_INVALID`
 */
export function parseConfig(raw: Buffer): { readonly config: ImageConfig; readonly diffIds: readonly DiffId[] } {
  const document = parseJson(raw, configSchema, "the image configuration");
  const settings = document.config ?? {};
  let diffIds: DiffId[];
  try {
    diffIds = (document.rootfs?.diff_ids ?? []).map(parseDiffId);
  } catch (error) {
    throw new StowageError(
      "IMAGE_MANIFEST_INVALID",
      { reason: "the image configuration names a diffID that is not valid" },
      { cause: error },
    );
  }
  const config: ImageConfig = {
    // Images from before platforms existed name none; they are linux/amd64.
    platform: toPlatform({ ...document, os: document.os || "linux", architecture: document.architecture || "amd64" }),
    created: document.created ?? undefined,
    author: document.author ?? undefined,
    user: settings.User ?? undefined,
    environment: settings.Env ?? [],
    entrypoint: settings.Entrypoint ?? undefined,
    command: settings.Cmd ?? undefined,
    labels: settings.Labels ?? {},
    exposedPorts: Object.keys(settings.ExposedPorts ?? {}),
    history: (document.history ?? []).map((entry) => ({
      createdBy: entry.created_by ?? "",
      isEmptyLayer: entry.empty_layer ?? false,
      ...(entry.created ? { created: entry.created } : {}),
      ...(entry.comment ? { comment: entry.comment } : {}),
    })),
    raw,
  };
  return { config, diffIds };
}

/**
 * Pairs the manifest's layers with the configuration's diffIDs.
 * @throws StowageError `IMAGE_MANIFEST_INVALID` when they are not equally many
 */
export function pairLayers(layers: readonly Descriptor[], diffIds: readonly DiffId[]): readonly ImageLayer[] {
  if (layers.length !== diffIds.length) {
    throw new StowageError("IMAGE_MANIFEST_INVALID", {
      reason: `the manifest has ${layers.length} layers, the image configuration names ${diffIds.length} diffIDs`,
    });
  }
  return diffIds.map((diffId, at) => {
    const descriptor = layers[at] as Descriptor;
    const type = findLayerType(descriptor.mediaType);
    if (type === undefined) throw notAnImage(descriptor.mediaType);
    return { descriptor, diffId, compression: type.compression, isForeign: type.isForeign };
  });
}

function toPlatform(value: {
  os: string;
  architecture: string;
  variant?: string | null | undefined;
  "os.version"?: string | null | undefined;
}): Platform {
  return normalizePlatform({
    os: value.os,
    architecture: value.architecture,
    ...(value.variant ? { variant: value.variant } : {}),
    ...(value["os.version"] ? { osVersion: value["os.version"] } : {}),
  });
}

function notAnImage(mediaType: string): StowageError {
  const isEncrypted = mediaType.endsWith("+encrypted");
  return new StowageError(
    "IMAGE_NOT_A_CONTAINER_IMAGE",
    { mediaType: mediaType.slice(0, 200) },
    {
      hint: isEncrypted
        ? "its layers are encrypted: decrypt the image first"
        : "stowage analyses container images, not charts, signatures, SBOMs or other artifacts",
    },
  );
}
