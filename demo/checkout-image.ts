import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { lstat, mkdir, readdir, readlink, rename, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { constants, createGzip, createZstdCompress } from "node:zlib";
import { type Pack, pack } from "tar-stream";

/** A layer on disk, and what it says of itself. */
interface BuiltLayer {
  readonly name: string;
  readonly files: number;
  readonly bytes: number;
  readonly diffId: string;
  readonly descriptor: { readonly mediaType: string; readonly digest: string; readonly size: number };
}

const media = {
  gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
};

/**
 * Builds an OCI layout at `layout` with two images of the checkout at `root`, tags `demo` and `demo-next`: a layer with the `node` binary, one with the
 * installed packages, one with the sources, and a last one of each image's own that replaces, whites out and adds files. `onBuilt` is told of each layer.
 */
export async function buildCheckoutImages(
  root: string,
  layout: string,
  signal: AbortSignal,
  onBuilt: (layer: BuiltLayer) => void,
): Promise<void> {
  const build = async (name: string, compression: keyof typeof media, fill: Fill) => {
    const built = await buildLayer(layout, name, compression, signal, fill);
    onBuilt(built);
    return built;
  };
  await mkdir(join(layout, "blobs", "sha256"), { recursive: true });
  const layers = [
    await build("runtime (the node binary)", "gzip", async (tar) => {
      await addFile(tar, process.execPath, "usr/local/bin/node");
      await addText(tar, "etc/os-release", 'ID=demo\nVERSION_ID=1\nPRETTY_NAME="Image of a stowage checkout"\n');
      return 2;
    }),
    await build("installed packages (node_modules)", "zstd", (tar) =>
      addTree(tar, root, join(root, "node_modules"), () => true),
    ),
    await build("sources", "gzip", (tar) =>
      addTree(tar, root, root, (path) => !/^(node_modules|dist|coverage|\.git)(\/|$)/.test(path)),
    ),
  ];
  const last = (tag: string) =>
    build(`last layer of ${tag}`, "gzip", async (tar) => {
      await addText(tar, "app/README.md", `# ${tag}\n`);
      await addText(tar, "app/.wh.CONTRIBUTING.md", "");
      await addText(tar, "app/docs/.wh..wh..opq", "");
      await addText(tar, "app/release.txt", `${tag}\n`);
      return 4;
    });
  const images = await Promise.all(
    ["demo", "demo-next"].map(async (tag) => ({ tag, layers: [...layers, await last(tag)] })),
  );
  const manifests = await Promise.all(images.map((image) => writeImage(layout, image.tag, image.layers)));
  await writeFile(join(layout, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await writeFile(join(layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
}

/** Adds entries, and says how many. */
type Fill = (tar: Pack) => Promise<number>;

async function buildLayer(
  layout: string,
  name: string,
  compression: keyof typeof media,
  signal: AbortSignal,
  fill: Fill,
): Promise<BuiltLayer> {
  const tar = pack();
  const diff = new Digester();
  const blob = new Digester();
  const compressor =
    compression === "gzip"
      ? createGzip({ level: 1 })
      : createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: 1 } });
  const path = join(layout, "blobs", "sha256", `building-${name.replaceAll(/[^a-z]/g, "-")}`);
  const written = pipeline(tar, diff, compressor, blob, createWriteStream(path), { signal });
  const filled = fill(tar).then((entries) => {
    tar.finalize();
    return entries;
  });
  const [, files] = await Promise.all([written, filled]);
  const digest = blob.digest();
  await rename(path, join(layout, "blobs", "sha256", digest.slice("sha256:".length)));
  const descriptor = { mediaType: media[compression], digest, size: blob.bytes };
  return { name, files, bytes: blob.bytes, diffId: diff.digest(), descriptor };
}

async function writeImage(layout: string, tag: string, layers: readonly BuiltLayer[]) {
  const config = await writeBlob(layout, {
    architecture: process.arch === "x64" ? "amd64" : process.arch,
    os: "linux",
    config: { Entrypoint: ["/usr/local/bin/node", "/app/src/cli/main.ts"], WorkingDir: "/app" },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
    history: layers.map(({ name }) => ({ created_by: name })),
  });
  const manifest = await writeBlob(layout, {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: { mediaType: "application/vnd.oci.image.config.v1+json", ...config },
    layers: layers.map(({ descriptor }) => descriptor),
  });
  return {
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    ...manifest,
    annotations: { "org.opencontainers.image.ref.name": tag },
  };
}

async function writeBlob(layout: string, document: unknown): Promise<{ digest: string; size: number }> {
  const bytes = Buffer.from(JSON.stringify(document));
  const hex = createHash("sha256").update(bytes).digest("hex");
  await writeFile(join(layout, "blobs", "sha256", hex), bytes);
  return { digest: `sha256:${hex}`, size: bytes.length };
}

/** Adds everything below `directory`, named from `root` under `app/`, that `wanted` says yes to. Returns how many entries. */
async function addTree(tar: Pack, root: string, directory: string, wanted: (path: string) => boolean): Promise<number> {
  let count = 0;
  const entries = await readdir(directory, { withFileTypes: true });
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const source = join(directory, entry.name);
    const path = relative(root, source);
    if (!wanted(path)) continue;
    const name = `app/${path}`;
    count++;
    if (entry.isDirectory()) {
      await addEntry(tar, { name, type: "directory", mode: 0o755 });
      count += await addTree(tar, root, source, wanted);
    } else if (entry.isSymbolicLink()) {
      await addEntry(tar, { name, type: "symlink", linkname: await readlink(source) });
    } else if (entry.isFile()) await addFile(tar, source, name);
  }
  return count;
}

async function addFile(tar: Pack, source: string, name: string): Promise<void> {
  const { size, mode } = await lstat(source);
  const entry = tar.entry({ name, size, mode: mode & 0o777, mtime: new Date(0) });
  await pipeline(createReadStream(source), entry);
}

async function addText(tar: Pack, name: string, text: string): Promise<void> {
  await addEntry(tar, { name, mode: 0o644 }, text);
}

function addEntry(tar: Pack, header: Parameters<Pack["entry"]>[0], content = ""): Promise<void> {
  return new Promise((resolve, reject) => {
    tar.entry({ mtime: new Date(0), ...header }, content, (error) => (error ? reject(error) : resolve()));
  });
}

/** Passes bytes on, and knows their digest and number. */
class Digester extends Transform {
  bytes = 0;
  readonly #hash = createHash("sha256");

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: (error: null, chunk: Buffer) => void): void {
    this.#hash.update(chunk);
    this.bytes += chunk.length;
    done(null, chunk);
  }

  digest(): string {
    return `sha256:${this.#hash.digest("hex")}`;
  }
}
