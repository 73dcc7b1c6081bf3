/**
 * Builds small images for tests: layers from lists of tar entries, manifests, indexes, OCI layouts and archives, Docker archives.
 * Deterministic: the same input gives the same bytes. Everything can be overridden, so that hostile images can be built too.
 */
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { type TarEntry, tarStream } from "./tar.ts";

export { gnuLongHeader, paxBody, paxHeader, type SparseContent, type TarEntry, tarChunks, tarStream } from "./tar.ts";

export type Compression = "none" | "gzip" | "gzip-members" | "zstd";

export const mediaTypes = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  ociConfig: "application/vnd.oci.image.config.v1+json",
  ociLayer: "application/vnd.oci.image.layer.v1.tar",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar",
} as const;

export interface LayerSpec {
  /** The layer's entries, or its finished tar stream. */
  readonly content: readonly TarEntry[] | Buffer;
  /** Default `gzip`. */
  readonly compression?: Compression;
  readonly mediaType?: string;
  /** A claim other than the truth. */
  readonly diffId?: string;
  readonly size?: number;
  readonly digest?: string;
  readonly urls?: readonly string[];
}

export interface ImageSpec {
  readonly layers: readonly (LayerSpec | readonly TarEntry[])[];
  readonly os?: string;
  readonly architecture?: string;
  readonly variant?: string;
  /** Media types of Docker instead of OCI's. */
  readonly docker?: boolean;
  /** Merged over the configuration document. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Merged over the manifest document. */
  readonly manifest?: Readonly<Record<string, unknown>>;
}

export interface BuiltDescriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: Readonly<Record<string, unknown>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly urls?: readonly string[];
}

export interface BuiltLayer {
  readonly descriptor: BuiltDescriptor;
  readonly diffId: string;
  readonly tar: Buffer;
  readonly blob: Buffer;
}

/** A manifest or index with everything it stands on. */
export interface Built {
  readonly descriptor: BuiltDescriptor;
  readonly bytes: Buffer;
  /** Every blob by digest, the manifest or index itself included. */
  readonly blobs: ReadonlyMap<string, Buffer>;
}

export interface BuiltImage extends Built {
  readonly config: Buffer;
  readonly configDigest: string;
  readonly layers: readonly BuiltLayer[];
}

export function sha256(bytes: Buffer | string): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

export function compress(tar: Buffer, compression: Compression): Buffer {
  switch (compression) {
    case "none":
      return tar;
    case "gzip":
      return gzipSync(tar);
    case "zstd":
      return zstdCompressSync(tar);
    case "gzip-members": {
      const third = Math.ceil(tar.length / 3);
      return Buffer.concat(
        [0, 1, 2].map((part) => gzipSync(tar.subarray(part * third, Math.min(tar.length, (part + 1) * third)))),
      );
    }
  }
}

export function buildLayer(spec: LayerSpec | readonly TarEntry[], docker = false): BuiltLayer {
  const { content, compression = "gzip", ...claims } = isEntries(spec) ? { content: spec } : spec;
  const tar = Buffer.isBuffer(content) ? content : tarStream(content);
  const blob = compress(tar, compression);
  const suffix = { none: "", gzip: "gzip", "gzip-members": "gzip", zstd: "zstd" }[compression];
  const mediaType = docker
    ? mediaTypes.dockerLayer + (suffix && `.${suffix}`)
    : mediaTypes.ociLayer + (suffix && `+${suffix}`);
  return {
    descriptor: {
      mediaType: claims.mediaType ?? mediaType,
      digest: claims.digest ?? sha256(blob),
      size: claims.size ?? blob.length,
      ...(claims.urls ? { urls: claims.urls } : {}),
    },
    diffId: claims.diffId ?? sha256(tar),
    tar,
    blob,
  };
}

export function buildImage(spec: ImageSpec): BuiltImage {
  const docker = spec.docker ?? false;
  const layers = spec.layers.map((layer) => buildLayer(layer, docker));
  const os = spec.os ?? "linux";
  const architecture = spec.architecture ?? "amd64";
  const variant = spec.variant === undefined ? {} : { variant: spec.variant };
  const config = json({
    architecture,
    os,
    ...variant,
    created: "2020-01-01T00:00:00Z",
    config: { Env: ["PATH=/bin"], Cmd: ["/bin/sh"] },
    rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.diffId) },
    history: layers.map((_, index) => ({ created: "2020-01-01T00:00:00Z", created_by: `layer ${index}` })),
    ...spec.config,
  });
  const configDigest = sha256(config);
  const mediaType = docker ? mediaTypes.dockerManifest : mediaTypes.ociManifest;
  const bytes = json({
    schemaVersion: 2,
    mediaType,
    config: {
      mediaType: docker ? mediaTypes.dockerConfig : mediaTypes.ociConfig,
      digest: configDigest,
      size: config.length,
    },
    layers: layers.map((layer) => layer.descriptor),
    ...spec.manifest,
  });
  const blobs = new Map<string, Buffer>(layers.map((layer) => [layer.descriptor.digest, layer.blob]));
  blobs.set(configDigest, config).set(sha256(bytes), bytes);
  return {
    descriptor: { mediaType, digest: sha256(bytes), size: bytes.length, platform: { os, architecture, ...variant } },
    bytes,
    blobs,
    config,
    configDigest,
    layers,
  };
}

/** An index over images, or over other indexes. `descriptors` are appended as they are (unknown types, missing blobs…). */
export function buildIndex(
  parts: readonly Built[],
  options: {
    readonly docker?: boolean;
    readonly attestations?: boolean;
    readonly descriptors?: readonly BuiltDescriptor[];
  } = {},
): Built {
  const blobs = new Map(parts.flatMap((part) => [...part.blobs]));
  const attestations = options.attestations ? parts.map((part) => buildAttestation(part)) : [];
  for (const attestation of attestations) for (const [digest, blob] of attestation.blobs) blobs.set(digest, blob);
  const mediaType = options.docker ? mediaTypes.dockerList : mediaTypes.ociIndex;
  const bytes = json({
    schemaVersion: 2,
    mediaType,
    manifests: [...parts, ...attestations].map((part) => part.descriptor).concat(options.descriptors ?? []),
  });
  blobs.set(sha256(bytes), bytes);
  return { descriptor: { mediaType, digest: sha256(bytes), size: bytes.length }, bytes, blobs };
}

/** What buildkit adds to an index beside each image. */
export function buildAttestation(of: Built): Built {
  const statement = json({ _type: "https://in-toto.io/Statement/v0.1", predicate: {} });
  const layer = { mediaType: "application/vnd.in-toto+json", digest: sha256(statement), size: statement.length };
  const image = buildImage({
    layers: [],
    os: "unknown",
    architecture: "unknown",
    config: { rootfs: { type: "layers", diff_ids: [layer.digest] } },
    manifest: { layers: [layer] },
  });
  const blobs = new Map(image.blobs).set(layer.digest, statement);
  const annotations = {
    "vnd.docker.reference.digest": of.descriptor.digest,
    "vnd.docker.reference.type": "attestation-manifest",
  };
  return { descriptor: { ...image.descriptor, annotations }, bytes: image.bytes, blobs };
}

/** One entry of a layout's `index.json`. */
export interface LayoutEntry {
  readonly image: Built;
  /** Annotation `org.opencontainers.image.ref.name`. */
  readonly ref?: string;
  /** Annotation `io.containerd.image.name`. */
  readonly name?: string;
}

/** The files of an OCI layout by their path. */
export function layoutFiles(entries: readonly LayoutEntry[]): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  files.set("oci-layout", json({ imageLayoutVersion: "1.0.0" }));
  const manifests = entries.map(({ image, ref, name }) => {
    const annotations = {
      ...image.descriptor.annotations,
      ...(ref === undefined ? {} : { "org.opencontainers.image.ref.name": ref }),
      ...(name === undefined ? {} : { "io.containerd.image.name": name }),
    };
    return { ...image.descriptor, ...(Object.keys(annotations).length > 0 ? { annotations } : {}) };
  });
  files.set("index.json", json({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests }));
  for (const { image } of entries) {
    for (const [digest, blob] of image.blobs) files.set(`blobs/${digest.replace(":", "/")}`, blob);
  }
  return files;
}

/** Writes files (of {@link layoutFiles}) under a directory. */
export function writeFiles(directory: string, files: ReadonlyMap<string, Buffer>): void {
  for (const [path, content] of files) {
    mkdirSync(dirname(join(directory, path)), { recursive: true });
    writeFileSync(join(directory, path), content);
  }
}

/** Writes an OCI layout of these images to a directory. */
export function writeLayout(directory: string, entries: readonly LayoutEntry[]): void {
  writeFiles(directory, layoutFiles(entries));
}

/** Files as the members of a tar: an OCI archive, when the files are a layout's. */
export function archiveOf(files: ReadonlyMap<string, Buffer>, prefix = ""): Buffer {
  return tarStream([...files].map(([path, content]) => ({ path: prefix + path, content })));
}

export function ociArchive(entries: readonly LayoutEntry[]): Buffer {
  return archiveOf(layoutFiles(entries));
}

export interface DockerArchiveEntry {
  readonly image: BuiltImage;
  /** `null` is what `docker save ID` writes. */
  readonly repoTags: readonly string[] | null;
}

/**
 * What `docker save` writes.
 * `old`: `manifest.json`, `CONFIG.json`, `ID/layer.tar` and `repositories`; a layer that comes twice is a symlink to the first.
 * `docker25`: the same tar is an OCI layout as well, and both views hold (`oci-layout` is left out when `layout` is false).
 */
export function dockerArchive(
  entries: readonly DockerArchiveEntry[],
  options: { readonly form?: "old" | "docker25"; readonly gzipLayers?: boolean } = {},
): Buffer {
  return options.form === "docker25" ? docker25Archive(entries) : oldArchive(entries, options.gzipLayers ?? false);
}

function oldArchive(entries: readonly DockerArchiveEntry[], gzipLayers: boolean): Buffer {
  const members: TarEntry[] = [];
  const written = new Map<string, string>();
  const manifest = entries.map(({ image, repoTags }, at) => {
    const hex = image.configDigest.slice("sha256:".length);
    if (!written.has(hex)) members.push({ path: `${hex}.json`, content: image.config });
    written.set(hex, hex);
    const layers = image.layers.map((layer, index) => {
      const directory = sha256(`${hex} ${at} ${index}`).slice("sha256:".length);
      const path = `${directory}/layer.tar`;
      members.push({ path: directory, type: "dir" }, { path: `${directory}/VERSION`, content: "1.0" });
      members.push({ path: `${directory}/json`, content: json({ id: directory }) });
      const first = written.get(layer.diffId);
      if (first) members.push({ path, type: "symlink", linkTarget: `../${first}`, mode: 0o777 });
      else members.push({ path, content: gzipLayers ? compress(layer.tar, "gzip") : layer.tar });
      if (!first) written.set(layer.diffId, path);
      return path;
    });
    return { Config: `${hex}.json`, RepoTags: repoTags, Layers: layers };
  });
  members.push({ path: "manifest.json", content: json(manifest) });
  members.push({ path: "repositories", content: json({}) });
  return tarStream(members);
}

function docker25Archive(entries: readonly DockerArchiveEntry[]): Buffer {
  const path = (digest: string) => `blobs/${digest.replace(":", "/")}`;
  const files = layoutFiles(
    entries.flatMap(({ image, repoTags }) =>
      (repoTags ?? [undefined]).map((name) => ({
        image,
        ...(name === undefined
          ? {}
          : {
              name: name.includes("/") ? name : `docker.io/library/${name}`,
              ref: name.slice(name.lastIndexOf(":") + 1),
            }),
      })),
    ),
  );
  const manifest = entries.map(({ image, repoTags }) => ({
    Config: path(image.configDigest),
    RepoTags: repoTags,
    Layers: image.layers.map((layer) => path(layer.descriptor.digest)),
    LayerSources: Object.fromEntries(image.layers.map((layer) => [layer.diffId, layer.descriptor])),
  }));
  files.set("manifest.json", json(manifest));
  return archiveOf(files);
}

function isEntries(spec: LayerSpec | readonly TarEntry[]): spec is readonly TarEntry[] {
  return Array.isArray(spec);
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
