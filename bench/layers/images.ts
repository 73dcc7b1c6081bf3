import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type Built, type BuiltLayer, buildImage, buildLayer, writeLayout } from "../../test/images/builder.ts";
import type { TarEntry } from "../../test/images/tar.ts";
import { readTags } from "../layout.ts";

/** Images of one OCI layout, in the order in which they are analysed. */
export interface Family {
  readonly name: string;
  readonly layout: string;
  readonly tags: readonly string[];
}

const familyLayout = "family-large";
const familyImages = 20;
const poolBytesMax = 1024 * 1024;

/**
 * The family on the large image, as `bench/README.md` says to build it; where it is not there, one that is made here, on a base of 60 MB.
 * `scale` takes a part of the 20 images, not of the base.
 */
export async function findFamily(images: string, scale: number, scratch: string): Promise<Family> {
  const count = Math.max(3, Math.round(familyImages * scale));
  const built = join(images, familyLayout);
  if (images !== "" && existsSync(join(built, "index.json"))) {
    return { name: familyLayout, layout: built, tags: (await readTags(built)).slice(0, count) };
  }
  const layout = join(scratch, "family");
  await writeFamily(layout, count);
  return { name: "a family made by the bench", layout, tags: await readTags(layout) };
}

/** As teams' images are: a base of two layers, one layer for each group of five, and a small one for each image. */
async function writeFamily(layout: string, count: number): Promise<void> {
  await mkdir(layout, { recursive: true });
  const system = buildLayer([...distribution(400), ...files("usr/share/base", 3000, 24_000, "base")]);
  const runtime = buildLayer([...nodeModules(300), ...files("opt/runtime", 600, 80_000, "runtime")]);
  const groups = Array.from({ length: Math.ceil(count / 5) }, (_, group) =>
    buildLayer(files(`opt/common/${group}`, 400, 6000, `group ${group}`)),
  );
  const entries = Array.from({ length: count }, (_, index) => {
    const name = `app-${String(index).padStart(2, "0")}`;
    const own = buildLayer([
      ...files("srv/app/src", 150, 4000, name),
      { path: "srv/app/package.json", content: JSON.stringify({ name, version: `1.${index}.0`, license: "MIT" }) },
    ]);
    const group = groups.slice(Math.floor(index / 5)).slice(0, 1);
    return { image: imageOf([system, runtime, ...group, own]), ref: name };
  });
  writeLayout(layout, entries);
}

/** The layers are not packed anew for each image that has them. */
function imageOf(layers: readonly BuiltLayer[]): Built {
  const image = buildImage({
    layers: [],
    config: {
      rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
      history: layers.map(() => ({ created_by: "bench" })),
    },
    manifest: { layers: layers.map(({ descriptor }) => descriptor) },
  });
  const blobs = new Map(image.blobs);
  for (const { descriptor, blob } of layers) blobs.set(descriptor.digest, blob);
  return { ...image, blobs };
}

/**
 * Distinct small images that share nothing, each a layout of its own below `directory`: one layer of 300 kB with a distribution, 30 packages and
 * 40 files. Returns the layouts; the tag is `small`.
 */
export async function writeSmallImages(directory: string, count: number): Promise<readonly string[]> {
  const layouts: string[] = [];
  for (let index = 0; index < count; index++) {
    const layout = join(directory, String(index));
    await mkdir(layout, { recursive: true });
    const own = files("srv/data", 40, 7000, `small ${index}`);
    writeLayout(layout, [{ image: buildImage({ layers: [[...distribution(30), ...own]] }), ref: smallTag }]);
    layouts.push(layout);
  }
  return layouts;
}

export const smallTag = "small";

function distribution(packages: number): readonly TarEntry[] {
  const release = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n';
  const status = Array.from(
    { length: packages },
    (_, index) =>
      `Package: package-${index}\nStatus: install ok installed\nPriority: optional\nSection: libs\nInstalled-Size: ${index}\n` +
      `Maintainer: Bench <bench@example.com>\nArchitecture: amd64\nVersion: 1.${index}-1\nDescription: package ${index}\n\n`,
  );
  return [
    { path: "etc/os-release", content: release },
    { path: "etc/debian_version", content: "12.7\n" },
    { path: "var/lib/dpkg/status", content: status.join("") },
  ];
}

function nodeModules(packages: number): readonly TarEntry[] {
  return Array.from({ length: packages }, (_, index) => ({
    path: `usr/lib/node_modules/module-${index}/package.json`,
    content: JSON.stringify({ name: `module-${index}`, version: `2.${index}.0`, license: "MIT" }),
  }));
}

/** Half of a file's bytes can be compressed away. What one file repeats of another lies further apart than a compressor looks. */
function files(directory: string, count: number, sizeBytes: number, seed: string): readonly TarEntry[] {
  const poolBytes = Math.min(poolBytesMax, count * sizeBytes);
  const pool = bytesWithoutPattern(poolBytes / 2, seed).toString("hex");
  return Array.from({ length: count }, (_, index) => {
    const at = (index * sizeBytes) % (poolBytes - sizeBytes + 1);
    return {
      path: `${directory}/${Math.floor(index / 100)}/file-${index}`,
      content: `${seed} ${index}\n${pool.slice(at, at + sizeBytes)}`,
    };
  });
}

function bytesWithoutPattern(length: number, seed: string): Buffer {
  const parts = Array.from({ length: Math.ceil(length / 64) }, (_, part) =>
    createHash("sha512").update(`${seed} ${part}`).digest(),
  );
  return Buffer.concat(parts).subarray(0, length);
}
