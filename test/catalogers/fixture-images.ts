import { Buffer } from "node:buffer";
import { createReadStream, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { createGunzip, createZstdDecompress, gunzipSync } from "node:zlib";
import { extract } from "tar-stream";
import type { LayerFiles } from "./run-cataloger.ts";

/** Where the fixtures are: `STOWAGE_FIXTURES`, else `../shared/fixtures` beside the checkout; `undefined` if they are not there. */
export function findFixtures(): string | undefined {
  const root = process.env.STOWAGE_FIXTURES ?? join(import.meta.dirname, "../../../shared/fixtures");
  return existsSync(join(root, "truth")) ? root : undefined;
}

/** Whether a run without the fixtures must fail. */
export function areFixturesRequired(): boolean {
  return (process.env.STOWAGE_TEST_REQUIRE ?? "").split(",").includes("fixtures");
}

export function readTruth(root: string, name: string): unknown {
  return JSON.parse(gunzipSync(readFileSync(join(root, "truth", `${name}.json.gz`))).toString());
}

/**
 * Regular files that `isWanted`, layer by layer, of an image in a tar of an OCI layout; whiteouts too. Reads tars by tar-stream, so it shares
 * nothing with stowage's own reader. Links are not resolved.
 */
export async function readFixtureLayers(
  root: string,
  name: string,
  isWanted: (path: string) => boolean,
): Promise<LayerFiles[]> {
  const blobs = new Map<string, Buffer>();
  await readTar(createReadStream(join(root, "images", `${name}.oci.tar`)), (path) => path, blobs);
  const json = (path: string) => JSON.parse(blobs.get(path)?.toString() ?? "null");
  const blobPath = (digest: string) => `blobs/${digest.replace(":", "/")}`;
  const manifest = json(blobPath(json("index.json").manifests[0].digest));
  const layers: LayerFiles[] = [];
  for (const { digest } of manifest.layers as { digest: string }[]) {
    const blob = blobs.get(blobPath(digest)) ?? Buffer.alloc(0);
    const files = new Map<string, Buffer>();
    await readTar(decompressed(blob), (path) => (isWanted(path) || isWhiteout(path) ? path : undefined), files);
    layers.push(
      Object.fromEntries(
        [...files].map(([path, content]) =>
          isWhiteout(path) ? [path.replace(/\.wh\.([^/]*)$/, "$1"), null] : [path, content],
        ),
      ),
    );
  }
  return layers;
}

function isWhiteout(path: string): boolean {
  return /(?:^|\/)\.wh\.[^/]+$/.test(path) && !path.endsWith("/.wh..wh..opq");
}

function decompressed(blob: Buffer): Readable {
  const source = Readable.from([blob]);
  if (blob.readUInt32LE(0) === 0xfd2fb528) return source.pipe(createZstdDecompress());
  return blob.readUInt16LE(0) === 0x8b1f ? source.pipe(createGunzip()) : source;
}

async function readTar(
  source: Readable,
  keep: (path: string) => string | undefined,
  into: Map<string, Buffer>,
): Promise<void> {
  const archive = extract();
  source.on("error", (error) => archive.destroy(error));
  for await (const entry of source.pipe(archive)) {
    const path = keep(entry.header.name.replace(/^(?:\.?\/)+/, ""));
    if (entry.header.type === "file" && path !== undefined) into.set(path, await buffer(entry));
    else entry.resume();
  }
}
