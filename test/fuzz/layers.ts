/**
 * Damages real layers and analyses them: whatever comes, the outcome is a document or a StowageError, in bounded memory and time.
 * A seed decides everything; it is printed with what it found.
 *
 * Usage: npm run test:fuzz -- [--runs N] [--seed S]
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { gunzipSync, gzipSync, zstdCompressSync } from "node:zlib";
import { defaultLimits, type Limits } from "../../src/config/index.ts";
import { StowageError } from "../../src/errors/index.ts";
import {
  analyzeLayer,
  closeSpill,
  type ExpectedLayer,
  LayerReading,
  mergeLayers,
  NoteList,
  openSpill,
  readSpill,
} from "../../src/layer/index.ts";
import { gnuLongHeader, paxHeader, tarStream } from "../images/builder.ts";

export interface FuzzReport {
  readonly runs: number;
  /** How often a layer was read, and how often refused, by code. */
  readonly outcomes: Readonly<Record<string, number>>;
  readonly peakGrowthMebibytes: number;
}

/** Small enough that a damaged size or sparse map cannot take long. */
const limits: Limits = { ...defaultLimits, layerBytesMax: 64 * 1024 * 1024, layerEntriesMax: 100_000 };

/** @throws Error with seed and run for anything that is neither a document nor a StowageError, or takes too long. */
export async function fuzzLayers(seed: number, runs: number, corpus: readonly Buffer[]): Promise<FuzzReport> {
  const outcomes: Record<string, number> = {};
  const before = process.resourceUsage().maxRSS;
  for (let run = 0; run < runs; run++) {
    const random = randomOf(seed, run);
    const outcome = await outcomeOf(damagedLayer(random, corpus)).catch((error: unknown) => {
      throw new Error(`seed ${seed}, run ${run}: not a StowageError`, { cause: error });
    });
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  }
  return { runs, outcomes, peakGrowthMebibytes: Math.round((process.resourceUsage().maxRSS - before) / 1024) };
}

type Random = (below: number) => number;

/** The same numbers for the same seed and run, so that one run can be repeated alone. */
function randomOf(seed: number, run: number): Random {
  let state = createHash("sha256").update(`${seed} ${run}`).digest();
  let at = 0;
  return (below) => {
    if (at + 4 > state.length) {
      state = createHash("sha256").update(state).digest();
      at = 0;
    }
    const value = state.readUInt32LE(at);
    at += 4;
    return value % below;
  };
}

interface DamagedLayer {
  readonly blob: Buffer;
  /** The diffID is right as far as there can be one: else every damage would end at the digest. */
  readonly content: Buffer;
}

function damagedLayer(random: Random, corpus: readonly Buffer[]): DamagedLayer {
  const original = corpus[random(corpus.length)] as Buffer;
  const isTarDamaged = random(4) > 0;
  const content = isTarDamaged ? damage(original, random, true) : original;
  const compressed = [content, gzipSync(content, { level: 1 }), zstdCompressSync(content)][random(3)] as Buffer;
  return { blob: isTarDamaged ? compressed : damage(compressed, random, false), content };
}

/** Numbers that programs get wrong. */
const fields = [
  "77777777777\0",
  "00000000000\0",
  "-0000000001\0",
  "99999999999\0",
  "\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
];

function damage(original: Buffer, random: Random, isTar: boolean): Buffer {
  let bytes = Buffer.from(original);
  for (let count = 1 + random(3); count > 0 && bytes.length > 0; count--) {
    const at = random(bytes.length);
    const block = at - (at % 512);
    // Of damage that shifts what follows little is learnt: the next header is none.
    switch (isTar && random(3) > 0 ? 4 + random(4) : random(4)) {
      case 0:
        bytes[at] = random(256);
        break;
      case 1:
        bytes = bytes.subarray(0, at);
        break;
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + random(2000))]);
        break;
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), Buffer.alloc(random(2000), random(256)), bytes.subarray(at)]);
        break;
      case 4:
        // A header's field, with a checksum that fits: most of the rest falls to the checksum.
        setField(
          bytes,
          block,
          [100, 108, 124, 136, 329, 345, 386, 483][random(8)] as number,
          fields[random(5)] as string,
        );
        break;
      case 5:
        setField(bytes, block, 156, "0\x001234567xgLKSVMDNXA"[random(20)] as string);
        break;
      case 6:
        bytes = Buffer.concat([bytes.subarray(0, block), insertion(random), bytes.subarray(block)]);
        break;
      default: {
        const from = random(bytes.length);
        bytes = Buffer.concat([bytes.subarray(0, block), bytes.subarray(from - (from % 512))]);
      }
    }
    if (bytes.length > 8 * 1024 * 1024) bytes = bytes.subarray(0, 8 * 1024 * 1024);
  }
  return bytes;
}

function setField(bytes: Buffer, block: number, offset: number, value: string): void {
  if (block + 512 > bytes.length) return;
  bytes.write(value, block + offset, "latin1");
  bytes.fill(0x20, block + 148, block + 156);
  const sum = bytes.subarray(block, block + 512).reduce((total, byte) => total + byte, 0);
  bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, block + 148, "latin1");
}

function insertion(random: Random): Buffer {
  const value = ["", "a", "../..", "/", "usr/bin/x", ".wh..wh..opq", "n".repeat(300), "-1", "1,2", "9".repeat(15)][
    random(10)
  ] as string;
  const key = ["path", "linkpath", "size", "mtime", "uid", "GNU.sparse.map", "GNU.sparse.major", "GNU.sparse.realsize"][
    random(8)
  ] as string;
  switch (random(4)) {
    case 0:
      return gnuLongHeader(random(2) === 0 ? "L" : "K", value);
    case 1:
      return tarStream(
        [{ path: value || ".wh.x", type: random(2) === 0 ? "symlink" : "hardlink", linkTarget: value }],
        { end: "none" },
      );
    case 2:
      return Buffer.alloc(512 * (1 + random(2)));
    default:
      return paxHeader(
        { [key]: value, ...(key === "GNU.sparse.major" ? { "GNU.sparse.minor": "0" } : {}) },
        random(8) === 0 ? "g" : "x",
      );
  }
}

async function outcomeOf({ blob, content }: DamagedLayer): Promise<string> {
  const digest = (bytes: Buffer) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
  const expected = {
    blobDigest: digest(blob),
    blobBytes: blob.length,
    diffId: digest(content),
    compression: undefined,
  } as ExpectedLayer;
  const [scratch, output] = [openSpill(tmpdir()), openSpill(tmpdir())];
  try {
    const options = { catalogers: [], fingerprint: "fuzz", limits, scratch, output };
    const { documentBytes } = await analyzeLayer(async () => pieces(blob), expected, options);
    const document = { name: "fuzz", open: async () => readSpill(output, documentBytes) };
    const merging = mergeLayers([await LayerReading.open(document)], new NoteList(limits));
    for await (const _ of merging);
    return "read";
  } catch (error) {
    if (error instanceof StowageError && error.code !== "LAYER_DOCUMENT_INVALID") return error.code;
    throw error;
  } finally {
    closeSpill(scratch);
    closeSpill(output);
  }
}

async function* pieces(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 50_000) yield Buffer.from(bytes.subarray(at, at + 50_000));
}

/** Uncompressed layers to begin with: one that has a bit of everything, and the start of a real one where the fixtures are. */
export function fuzzCorpus(): Buffer[] {
  const everything = tarStream([
    { path: "usr", type: "dir" },
    { path: "usr/bin/x", content: "x".repeat(3000), mode: 0o4755 },
    { path: "bin", type: "symlink", linkTarget: "usr/bin" },
    { path: "bin/y", content: "y" },
    { path: "z", type: "hardlink", linkTarget: "usr/bin/x" },
    { path: "lower", type: "hardlink", linkTarget: "etc/lower" },
    { path: "etc/.wh.gone" },
    { path: "var/.wh..wh..opq" },
    { path: `long/${"n".repeat(200)}`, content: "l", uid: 3_000_000 },
    { path: `gnu/${"n".repeat(200)}`, content: "g", format: "gnu" },
    { path: "null", type: "char", device: [1, 3] },
    { path: "cap", content: "c", pax: { "SCHILY.xattr.security.capability": "\x01\0" } },
    ...(["gnu", "pax-0.0", "pax-0.1", "pax-1.0"] as const).map((form) => ({
      path: `sparse-${form}`,
      sparse: {
        form,
        realSize: 9000,
        chunks: Array.from({ length: 30 }, (_, at) => ({ offset: at * 300, data: "s" })),
      },
    })),
  ]);
  const fixtures = process.env.STOWAGE_FIXTURES ?? join(import.meta.dirname, "../../../shared/fixtures");
  const archive = join(fixtures, "images/alpine-3.20.oci.tar");
  return existsSync(archive) ? [everything, startOfLayer(readFileSync(archive))] : [everything];
}

/** The first entries of the gzip layer in an archive. */
function startOfLayer(archive: Buffer): Buffer {
  let largest: Buffer = Buffer.alloc(0);
  for (let at = 0; at + 512 <= archive.length; ) {
    const size = Number.parseInt(archive.toString("latin1", at + 124, at + 135), 8) || 0;
    if (size > largest.length) largest = archive.subarray(at + 512, at + 512 + size);
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return gunzipSync(largest).subarray(0, 1024 * 1024);
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({ options: { runs: { type: "string", default: "10000" }, seed: { type: "string" } } });
  const seed = Number(values.seed ?? Date.now() % 2 ** 31);
  process.stdout.write(`seed ${seed}\n`);
  process.stdout.write(`${JSON.stringify(await fuzzLayers(seed, Number(values.runs), fuzzCorpus()), null, 2)}\n`);
}
