import { createHash } from "node:crypto";
import { closeSync, createReadStream, createWriteStream, openSync, readSync } from "node:fs";
import { rm, stat } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { createGunzip, createZstdDecompress } from "node:zlib";
import type { BenchLayer } from "./layout.ts";
import { measure } from "./measure.ts";
import { findProgram } from "./program.ts";
import { median } from "./statistics.ts";
import { writeRegularFileBytes } from "./tar.ts";

/** Processor time, in milliseconds, of the work that no analyser of this layer can avoid. */
export interface LayerCeiling {
  readonly layer: BenchLayer;
  readonly tarBytes: number;
  readonly fileBytes: number;
  readonly jobs: Readonly<Record<Job, number>>;
  readonly totalMs: number;
}

export interface Ceiling {
  readonly layers: readonly LayerCeiling[];
  readonly cores: number;
  readonly totalMs: number;
  readonly longestLayerMs: number;
  /** No analyser of this image can be faster: all the work spread evenly over the cores, or the longest layer alone. */
  readonly boundMs: number;
  /** The fastest candidate per kind of work, with what the others took. */
  readonly choices: readonly string[];
}

export const jobs = ["blobSha256", "decompress", "diffIdSha256", "fileMd5", "fileSha1", "fileSha256"] as const;
export type Job = (typeof jobs)[number];

type Algorithm = "md5" | "sha1" | "sha256";
/** One way to do a piece of work on a file: how long it took, in milliseconds of processor time. */
interface Candidate {
  readonly name: string;
  cost(file: string): Promise<number>;
}

const CHUNK_BYTES = 1024 * 1024;

/** Measures the bound of an image, each job `runs` times, with the fastest program found on this machine. */
export async function measureCeiling(layers: readonly BenchLayer[], runs: number, directory: string): Promise<Ceiling> {
  const choices = new Map<string, Candidate>();
  const told: string[] = [];
  // Chosen on the largest layer, where starting a process weighs least.
  const measured: LayerCeiling[] = [];
  for (const layer of layers.toSorted((a, b) => b.sizeBytes - a.sizeBytes)) {
    const tar = join(directory, "layer.tar");
    const files = join(directory, "files.bin");
    await decompressTo(layer, tar);
    const fileBytes = writeRegularFileBytes(tar, files);
    const cost = async (work: string, candidates: readonly Candidate[], file: string) => {
      const chosen = choices.get(work) ?? (await chooseFastest(work, candidates, file, told));
      choices.set(work, chosen);
      const costs: number[] = [];
      for (let run = 0; run < runs; run++) costs.push(await chosen.cost(file));
      return median(costs);
    };
    const hash = (algorithm: Algorithm, file: string) => cost(algorithm, hashers(algorithm), file);
    const jobsOfLayer: Record<Job, number> = {
      blobSha256: await hash("sha256", layer.path),
      decompress: layer.compression === "none" ? 0 : await cost(layer.compression, decompressors(layer), layer.path),
      diffIdSha256: await hash("sha256", tar),
      fileMd5: await hash("md5", files),
      fileSha1: await hash("sha1", files),
      fileSha256: await hash("sha256", files),
    };
    const tarBytes = (await stat(tar)).size;
    const totalMs = Object.values(jobsOfLayer).reduce((total, ms) => total + ms, 0);
    measured.push({ layer, tarBytes, fileBytes, jobs: jobsOfLayer, totalMs });
    await Promise.all([rm(tar), rm(files)]);
  }
  const cores = availableParallelism();
  const totalMs = measured.reduce((total, one) => total + one.totalMs, 0);
  const longestLayerMs = Math.max(...measured.map((one) => one.totalMs));
  return {
    layers: measured.toSorted((a, b) => layers.indexOf(a.layer) - layers.indexOf(b.layer)),
    cores,
    totalMs,
    longestLayerMs,
    boundMs: Math.max(totalMs / cores, longestLayerMs),
    choices: told,
  };
}

async function chooseFastest(
  work: string,
  candidates: readonly Candidate[],
  file: string,
  told: string[],
): Promise<Candidate> {
  const tried: { candidate: Candidate; ms: number }[] = [];
  for (const candidate of candidates) tried.push({ candidate, ms: await candidate.cost(file) });
  tried.sort((a, b) => a.ms - b.ms);
  const best = tried[0];
  if (!best) throw new Error(`nothing here can do ${work}`);
  const others = tried.slice(1).map(({ candidate, ms }) => `${candidate.name} ${(ms / 1000).toFixed(2)} s`);
  told.push(
    `${work}: ${best.candidate.name} ${(best.ms / 1000).toFixed(2)} s on the largest layer (${others.join(", ") || "no other found"})`,
  );
  return best.candidate;
}

function hashers(algorithm: Algorithm): Candidate[] {
  const openssl = findProgram("openssl");
  return [
    { name: `node:crypto (OpenSSL ${process.versions.openssl})`, cost: async (file) => hashFile(algorithm, file) },
    ...(openssl ? [program("openssl dgst", [openssl, "dgst", "-r", `-${algorithm}`])] : []),
  ];
}

/** Time of the hash function alone: the bytes have just been read into a buffer that fits the processor's cache. */
function hashFile(algorithm: Algorithm, file: string): number {
  const buffer = Buffer.alloc(CHUNK_BYTES);
  const hash = createHash(algorithm);
  const descriptor = openSync(file, "r");
  let microseconds = 0;
  try {
    for (let length = readSync(descriptor, buffer); length > 0; length = readSync(descriptor, buffer)) {
      const before = process.threadCpuUsage();
      hash.update(buffer.subarray(0, length));
      const used = process.threadCpuUsage(before);
      microseconds += used.user + used.system;
    }
  } finally {
    closeSync(descriptor);
  }
  hash.digest();
  return microseconds / 1000;
}

function decompressors(layer: BenchLayer): Candidate[] {
  const known: Readonly<Record<string, readonly (readonly string[])[]>> = {
    gzip: [
      ["igzip", "-dc"],
      ["libdeflate-gzip", "-dc"],
      ["pigz", "-dc"],
      ["gzip", "-dc"],
    ],
    zstd: [["zstd", "-dcq"]],
  };
  const found = (known[layer.compression] ?? []).flatMap(([name = "", ...rest]) => {
    const path = findProgram(name);
    return path ? [program(name, [path, ...rest])] : [];
  });
  return [...found, { name: `node:zlib (zlib ${process.versions.zlib})`, cost: () => decompressInProcess(layer) }];
}

function program(name: string, command: readonly string[]): Candidate {
  // Through the shell for the redirection: output that a candidate writes to a file would measure the file system.
  const quiet = ["/bin/sh", "-c", 'exec "$@" >/dev/null', "sh"];
  return { name, cost: async (file) => (await measure([...quiet, ...command, file])).cpuMs };
}

async function decompressInProcess(layer: BenchLayer): Promise<number> {
  const before = process.cpuUsage();
  for await (const _ of createReadStream(layer.path, { highWaterMark: CHUNK_BYTES }).pipe(decompressor(layer))) {
    // Only the cost counts.
  }
  const used = process.cpuUsage(before);
  return (used.user + used.system) / 1000;
}

async function decompressTo(layer: BenchLayer, file: string): Promise<void> {
  const source = createReadStream(layer.path);
  const target = createWriteStream(file);
  if (layer.compression === "none") await pipeline(source, target);
  else await pipeline(source, decompressor(layer), target);
}

function decompressor(layer: BenchLayer) {
  return layer.compression === "zstd"
    ? createZstdDecompress({ chunkSize: CHUNK_BYTES })
    : createGunzip({ chunkSize: CHUNK_BYTES });
}
