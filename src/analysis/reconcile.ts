import { createOwnershipRelator } from "../catalogers/index.ts";
import type { Limits } from "../config/index.ts";
import type { AnalysisDocument, ImageNote } from "../images/index.ts";
import {
  type AskedPaths,
  type CatalogedFinding,
  type Cataloger,
  type Distribution,
  type JsonValue,
  type LayerDocument,
  LayerReading,
  type LayerSummary,
  type MergeLayer,
  mergeLayers,
  type Note,
  NoteList,
  type Package,
  type PathKey,
  parsePathText,
  pathText,
  readOwnedFiles,
} from "../layer/index.ts";

export interface ImageIdentity {
  readonly digest: string;
  readonly imageId: string;
  readonly fingerprint: string;
  readonly layerKeys: readonly (string | null)[];
  readonly config: JsonValue;
}

const suidFilesMax = 10_000;

/**
 * Merges an image's layer documents and reconciles what catalogers found in each layer with the squashed view. A pure function of the documents.
 * `documents` are lowest first; undefined for a layer that was not fetched.
 */
export async function reconcileImage(
  identity: ImageIdentity,
  documents: readonly (LayerDocument | undefined)[],
  catalogers: readonly Cataloger[],
  limits: Limits,
): Promise<AnalysisDocument> {
  // Each document is read once, from its summary to its last entry; only lists of owned files are looked up again.
  await using opened = new AsyncDisposableStack();
  const layers: MergeLayer[] = [];
  for (const document of documents) layers.push(document && opened.use(await LayerReading.open(document)));
  const summaries = await Promise.all(layers.map((reading, layer) => reading?.summary(layer)));
  const view = await mergeView(layers, summaries, limits);
  const { packages, distribution, other, notes } = reconcile(catalogers, summaries, view);
  const related = await relateOwnership(packages, documents);

  const merged = new NoteCollector(limits);
  for (const [layer, summary] of summaries.entries()) {
    if (summary) merged.add(summary.notes, layer, summary.facts.notesLeftOut);
    else
      merged.add(
        [{ code: "layer-not-fetched", path: "", text: "nothing is known of this layer: it was not fetched" }],
        layer,
        0,
      );
  }
  merged.add(view.notes.notes, undefined, view.notes.leftOut);
  merged.add(notes, undefined, 0);
  return {
    facts: {
      formatVersion: 1,
      ...identity,
      ...(distribution === undefined ? {} : { distribution }),
      files: view.files,
      fileBytes: view.fileBytes,
      suidFiles: view.suidFiles,
      suidFilesLeftOut: view.suidFilesLeftOut,
      other,
      notesLeftOut: merged.leftOut,
    },
    packages: related,
    notes: merged.notes,
  };
}

interface View {
  readonly files: number;
  readonly fileBytes: number;
  readonly suidFiles: { readonly path: string; readonly mode: string }[];
  readonly suidFilesLeftOut: number;
  readonly asked: AskedPaths;
  readonly notes: NoteList;
}

async function mergeView(
  layers: readonly MergeLayer[],
  summaries: readonly (LayerSummary | undefined)[],
  limits: Limits,
): Promise<View> {
  const asked = new Map<PathKey, number | undefined>();
  for (const { path } of summaries.flatMap((summary) => summary?.findings ?? []))
    asked.set(parsePathText(path), undefined);
  const notes = new NoteList(limits);
  const suidFiles: { path: string; mode: string }[] = [];
  let files = 0;
  let fileBytes = 0;
  let suidFilesLeftOut = 0;
  for await (const batch of mergeLayers(layers, notes)) {
    for (const { key, node, layer } of batch) {
      files++;
      if (node.type !== "file") continue;
      fileBytes += node.size;
      if (asked.has(key)) asked.set(key, layer);
      if ((node.mode & 0o6000) === 0) continue;
      if (suidFiles.length < suidFilesMax)
        suidFiles.push({ path: pathText(key), mode: node.mode.toString(8).padStart(4, "0") });
      else suidFilesLeftOut++;
    }
  }
  return {
    files,
    fileBytes,
    suidFiles,
    suidFilesLeftOut,
    notes,
    asked: { layerOf: (path) => asked.get(parsePathText(path)) },
  };
}

interface Reconciled {
  readonly packages: Package[];
  readonly distribution: Distribution | undefined;
  readonly other: Record<string, JsonValue>;
  readonly notes: Omit<ImageNote, "layer">[];
}

function reconcile(
  catalogers: readonly Cataloger[],
  summaries: readonly (LayerSummary | undefined)[],
  view: View,
): Reconciled {
  const byCataloger = new Map<string, CatalogedFinding[]>();
  for (const finding of summaries.flatMap((summary) => summary?.findings ?? [])) {
    const findings = byCataloger.get(finding.cataloger) ?? [];
    findings.push(finding);
    byCataloger.set(finding.cataloger, findings);
  }
  const packages: Package[] = [];
  const other: Record<string, JsonValue> = {};
  const notes: Omit<ImageNote, "layer">[] = [];
  let distribution: Distribution | undefined;
  for (const cataloger of catalogers) {
    const found = cataloger.reconcile(byCataloger.get(cataloger.name) ?? [], view.asked, distribution);
    distribution ??= found.distribution;
    for (const record of found.packages) packages.push(record);
    for (const [kind, value] of Object.entries(found.other ?? {})) other[kind] = value;
    for (const note of found.notes ?? []) notes.push(note);
  }
  packages.sort(
    (a, b) =>
      compare(a.type, b.type) ||
      compare(a.name, b.name) ||
      compare(a.version, b.version) ||
      compare(a.location, b.location) ||
      compare(a.purl, b.purl),
  );
  return { packages, distribution, other, notes };
}

/** Marks packages whose own record belongs to a package of the distribution; file lists pass as a stream. */
async function relateOwnership(
  packages: readonly Package[],
  documents: readonly (LayerDocument | undefined)[],
): Promise<readonly Package[]> {
  const relator = createOwnershipRelator(packages);
  const owners = new Map<number, Map<number, Package>>();
  for (const record of packages) {
    for (const { layer, ordinal } of record.owned) {
      const ordinals = owners.get(layer) ?? new Map<number, Package>();
      owners.set(layer, ordinals.set(ordinal, record));
    }
  }
  for (const [layer, ordinals] of owners) {
    const document = documents[layer];
    if (!document) continue;
    for await (const { ordinal, files } of readOwnedFiles(document, new Set(ordinals.keys()))) {
      const owner = ordinals.get(ordinal);
      if (owner) for (const { path } of files) relator.see(owner, path);
    }
  }
  return relator.result();
}

class NoteCollector {
  readonly notes: ImageNote[] = [];
  leftOut = 0;
  readonly #max: number;

  constructor(limits: Limits) {
    this.#max = limits.notesMax;
  }

  add(notes: readonly (Note | Omit<ImageNote, "layer">)[], layer: number | undefined, leftOut: number): void {
    this.leftOut += leftOut;
    for (const { code, path, text } of notes) {
      if (this.notes.length < this.#max)
        this.notes.push({ code, path, text, ...(layer === undefined ? {} : { layer }) });
      else this.leftOut++;
    }
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
