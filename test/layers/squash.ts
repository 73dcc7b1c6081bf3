import { closeSync } from "node:fs";
import { tmpdir } from "node:os";
import { Readable } from "node:stream";
import { defaultLimits, type Limits } from "../../src/config/index.ts";
import {
  analyzeLayer,
  type Cataloger,
  type ExpectedLayer,
  type LayerAnalysis,
  type LayerDocument,
  LayerReading,
  type MergedEntry,
  mergeLayers,
  NoteList,
  openSpill,
  pathText,
  readSpill,
} from "../../src/layer/index.ts";
import { buildLayer, type LayerSpec, type TarEntry } from "../images/builder.ts";

/** An analysed layer held on a spill. */
export interface TestLayer extends Disposable {
  readonly analysis: LayerAnalysis;
  readonly document: LayerDocument;
}

export interface TestLayerOptions {
  readonly catalogers?: readonly Cataloger[];
  readonly limits?: Limits;
  readonly expected?: Partial<ExpectedLayer>;
  /** Bytes that come instead of the layer's blob. */
  readonly blob?: Buffer;
  readonly chunkBytes?: number;
}

/** Analyses one layer as the product does, in this thread. */
export async function analyzeTestLayer(
  spec: LayerSpec | readonly TarEntry[],
  options: TestLayerOptions = {},
): Promise<TestLayer> {
  const layer = buildLayer(spec);
  const blob = options.blob ?? layer.blob;
  const expected = {
    blobDigest: layer.descriptor.digest,
    blobBytes: layer.descriptor.size,
    diffId: layer.diffId,
    compression: undefined,
    ...options.expected,
  } as ExpectedLayer;
  const scratch = openSpill(tmpdir());
  const output = openSpill(tmpdir());
  try {
    const analysis = await analyzeLayer(async () => chunksOf(blob, options.chunkBytes ?? 64 * 1024), expected, {
      catalogers: options.catalogers ?? [],
      fingerprint: "test",
      limits: options.limits ?? defaultLimits,
      scratch,
      output,
    });
    const document = { name: layer.diffId, open: async () => readSpill(output, analysis.documentBytes) };
    return { analysis, document, [Symbol.dispose]: () => closeSync(output) };
  } catch (error) {
    closeSync(output);
    throw error;
  } finally {
    closeSync(scratch);
  }
}

function chunksOf(bytes: Buffer, size: number): AsyncIterable<Buffer> {
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += size) chunks.push(Buffer.from(bytes.subarray(at, at + size)));
  return Readable.from(chunks);
}

export interface SquashedImage {
  readonly entries: ReadonlyMap<string, MergedEntry>;
  /** `path` to a short description: `file CONTENT-SHA256… mode`, `dir mode`, `link -> target`. */
  readonly tree: Readonly<Record<string, string>>;
  /** `code path`, sorted, of layers and of merging. */
  readonly notes: readonly string[];
}

/** The squashed view of layers, lowest first. */
export async function squash(
  layers: readonly (LayerSpec | readonly TarEntry[])[],
  options: TestLayerOptions = {},
): Promise<SquashedImage> {
  const analyzed = await Promise.all(layers.map((layer) => analyzeTestLayer(layer, options)));
  const notes = new NoteList(options.limits ?? defaultLimits);
  const found: string[] = [];
  const entries = new Map<string, MergedEntry>();
  const readings = await Promise.all(analyzed.map(({ document }) => LayerReading.open(document)));
  for (const [index, reading] of readings.entries()) {
    for (const { code, path } of (await reading.summary(index)).notes) found.push(`${code} ${path}`);
  }
  for await (const batch of mergeLayers(readings, notes)) {
    for (const entry of batch) entries.set(pathText(entry.key), entry);
  }
  for (const layer of analyzed) layer[Symbol.dispose]();
  found.push(...notes.notes.map(({ code, path }) => `${code} ${path}`));
  const tree = Object.fromEntries([...entries].map(([path, entry]) => [path, describe(entry)]));
  return { entries, tree, notes: found.sort() };
}

function describe({ node, layer, isImplied }: MergedEntry): string {
  const mode = node.mode.toString(8);
  if (node.type === "symlink") return `-> ${node.link}`;
  if (node.type === "file")
    return `file ${Buffer.from((node.digests ?? "").slice(0, 16), "latin1")
      .toString("hex")
      .slice(0, 8)} ${mode} @${layer}`;
  return `${isImplied ? "implied " : ""}${node.type} ${mode} @${layer}`;
}
