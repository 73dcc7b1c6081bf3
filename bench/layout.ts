import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

export interface BenchLayer {
  readonly digest: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly compression: "none" | "gzip" | "zstd";
}

/** An image to measure with: a tag of an OCI layout. */
export interface BenchImage {
  readonly name: string;
  readonly layout: string;
  readonly tag: string;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

const REF_NAME = "org.opencontainers.image.ref.name";

/** The layers of one image of an OCI layout, lowest first. Reads with nothing of the product, so that the two can't share a mistake. */
export async function readLayers(layout: string, tag: string): Promise<BenchLayer[]> {
  const descriptor = (await readDescriptors(layout)).get(tag);
  if (!descriptor) throw new Error(`${layout} has no image ${tag}`);
  const manifest = await readJson<{ layers: Descriptor[] }>(blobPath(layout, descriptor.digest));
  return manifest.layers.map((layer) => ({
    digest: layer.digest,
    path: blobPath(layout, layer.digest),
    sizeBytes: layer.size,
    compression: /zstd$/.test(layer.mediaType) ? "zstd" : /gzip$/.test(layer.mediaType) ? "gzip" : "none",
  }));
}

/** The tags of a layout, in its order. */
export async function readTags(layout: string): Promise<string[]> {
  return [...(await readDescriptors(layout)).keys()];
}

/** The manifests of a layout by tag. */
export async function readDescriptors(layout: string): Promise<ReadonlyMap<string, Descriptor>> {
  const { manifests } = await readJson<{ manifests: Descriptor[] }>(join(layout, "index.json"));
  return new Map(
    manifests.flatMap((one) => {
      const tag = one.annotations?.[REF_NAME];
      return tag === undefined ? [] : [[tag, one] as const];
    }),
  );
}

export function blobPath(layout: string, digest: string): string {
  return join(layout, "blobs", ...digest.split(":"));
}

export async function readJson<T>(path: string): Promise<T> {
  return JSON.parse(await readFile(path, "utf8")) as T;
}

/** Reads all blobs of an image, so that they are in the page cache. */
export async function warmPageCache(layout: string, tag: string): Promise<void> {
  for (const { path } of await readLayers(layout, tag)) {
    for await (const _ of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
      // Only reading counts.
    }
  }
}
