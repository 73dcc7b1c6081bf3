import { createHash, type Hash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { mkdir, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import type { BenchImage } from "./layout.ts";

/** An image of one gzip layer, alike but for its size. */
export interface SyntheticLayer {
  readonly name: string;
  readonly files: number;
  readonly fileBytes: number;
}

const BLOCK_BYTES = 512;
const PIECE_BYTES = 1024 * 1024;
const FILES_PER_DIRECTORY = 1000;
const TAG = "synthetic";

/** Writes the image as an OCI layout. The same layer gives the same bytes each time. */
export async function writeSyntheticLayout(directory: string, layer: SyntheticLayer): Promise<BenchImage> {
  const blobs = join(directory, "blobs/sha256");
  await mkdir(blobs, { recursive: true });
  const diffId = createHash("sha256");
  const digest = createHash("sha256");
  const unnamed = join(blobs, "layer");
  await pipeline(
    Readable.from(tar(layer)),
    (source: AsyncIterable<Buffer>) => hashed(source, diffId),
    createGzip({ level: 1, chunkSize: PIECE_BYTES }),
    (source: AsyncIterable<Buffer>) => hashed(source, digest),
    createWriteStream(unnamed),
  );
  const name = digest.digest("hex");
  await rename(unnamed, join(blobs, name));
  const layerDescriptor = {
    mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    digest: `sha256:${name}`,
    size: (await stat(join(blobs, name))).size,
  };
  const config = await putJson(blobs, "application/vnd.oci.image.config.v1+json", {
    architecture: "amd64",
    os: "linux",
    config: {},
    rootfs: { type: "layers", diff_ids: [`sha256:${diffId.digest("hex")}`] },
  });
  const type = "application/vnd.oci.image.manifest.v1+json";
  const manifest = await putJson(blobs, type, { schemaVersion: 2, mediaType: type, config, layers: [layerDescriptor] });
  const annotations = { "org.opencontainers.image.ref.name": TAG };
  await writeFile(join(directory, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await writeFile(
    join(directory, "index.json"),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  );
  return { name: layer.name, layout: directory, tag: TAG };
}

function* tar({ files, fileBytes }: SyntheticLayer): Generator<Buffer> {
  // Half of it can be compressed away, as in real layers; every piece differs, since a repeated one would cost nothing.
  const content = Buffer.from(pseudoRandom(PIECE_BYTES / 2).toString("hex"), "latin1");
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  for (let file = 0; file < files; file++) {
    if (file % FILES_PER_DIRECTORY === 0) pending.push(header(directoryOf(file), 0, "5"));
    pending.push(header(`${directoryOf(file)}file-${file}`, fileBytes, "0"));
    for (let done = 0; done < fileBytes; done += PIECE_BYTES) {
      const piece = Buffer.from(content.subarray(0, Math.min(PIECE_BYTES, fileBytes - done)));
      piece.write(`${file}:${done}`);
      pending.push(piece);
      pendingBytes += piece.length;
      if (pendingBytes >= PIECE_BYTES) {
        yield Buffer.concat(pending);
        pending = [];
        pendingBytes = 0;
      }
    }
    pending.push(Buffer.alloc((BLOCK_BYTES - (fileBytes % BLOCK_BYTES)) % BLOCK_BYTES));
    pendingBytes += 2 * BLOCK_BYTES;
  }
  pending.push(Buffer.alloc(2 * BLOCK_BYTES));
  yield Buffer.concat(pending);
}

function directoryOf(file: number): string {
  return `data/directory-${Math.floor(file / FILES_PER_DIRECTORY)}/`;
}

/** @see POSIX pax, "ustar Interchange Format" */
function header(path: string, sizeBytes: number, type: "0" | "5"): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, digits: number) => value.toString(8).padStart(digits, "0");
  block.write(path, 0, 100);
  block.write(`${octal(type === "5" ? 0o755 : 0o644, 7)}\0${octal(0, 7)}\0${octal(0, 7)}\0`, 100);
  block.write(`${octal(sizeBytes, 11)}\0${octal(1_780_000_000, 11)}\0`, 124);
  block.write(`        ${type}`, 148);
  block.write("ustar\x0000", 257, "latin1");
  const checksum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${octal(checksum, 6)}\0 `, 148);
  return block;
}

/** Bytes without a pattern, the same in every run. */
function pseudoRandom(length: number): Buffer {
  const parts: Buffer[] = [];
  for (let part = 0; part * 64 < length; part++) parts.push(createHash("sha512").update(String(part)).digest());
  return Buffer.concat(parts).subarray(0, length);
}

async function* hashed(source: AsyncIterable<Buffer>, hash: Hash): AsyncGenerator<Buffer> {
  for await (const chunk of source) {
    hash.update(chunk);
    yield chunk;
  }
}

async function putJson(blobs: string, mediaType: string, value: object) {
  const bytes = Buffer.from(JSON.stringify(value));
  const name = createHash("sha256").update(bytes).digest("hex");
  await writeFile(join(blobs, name), bytes);
  return { mediaType, digest: `sha256:${name}`, size: bytes.length };
}
