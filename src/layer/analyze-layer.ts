import type { Limits } from "../config/index.ts";
import { messageOf, StowageError } from "../errors/index.ts";
import { freeBytes } from "./bytes.ts";
import { KeptContents } from "./content.ts";
import { EntriesWriter, type LayerFacts, LinesWriter, layerDocumentMagic } from "./document.ts";
import type { LayerNode } from "./entry.ts";
import type { Cataloger, Finding, SelectedFile, SelectedFiles } from "./findings.ts";
import { encodeFrame } from "./frames.ts";
import { LayerCollector, MissingContents } from "./layer-collector.ts";
import { type ExpectedLayer, streamLayer } from "./layer-stream.ts";
import { NoteList } from "./notes.ts";
import { pathText } from "./path.ts";
import { PathMatcher } from "./patterns.ts";
import { type ResolvedEntry, resolveLayer } from "./resolve.ts";
import { Spill } from "./spill.ts";

export interface LayerAnalysisOptions {
  readonly catalogers: readonly Cataloger[];
  readonly fingerprint: string;
  readonly limits: Limits;
  /** Descriptors of two empty spills, open for reading and writing: scratch space, and the finished document. They stay open. */
  readonly scratch: number;
  readonly output: number;
}

export interface LayerAnalysis {
  readonly facts: LayerFacts;
  readonly documentBytes: number;
}

/**
 * Reads a layer and writes its document to `output`. `open` is called once; a second time only for the rare file that a cataloger asks for
 * under a name which shows after the first pass (reached through a hard link or a symlinked parent).
 * @throws StowageError see {@link streamLayer}
 */
export async function analyzeLayer(
  open: () => Promise<AsyncIterable<Buffer>>,
  expected: ExpectedLayer,
  options: LayerAnalysisOptions,
): Promise<LayerAnalysis> {
  const { catalogers, limits, fingerprint } = options;
  const { layerSpillBytesMax } = limits;
  const spill = new Spill(options.scratch, { layerSpillBytesMax, layer: expected.blobDigest });
  const notes = new NoteList(limits);
  const wants = new PathMatcher(
    catalogers.flatMap((cataloger) => cataloger.wants.map((glob) => [glob, cataloger] as const)),
  );
  const contents = new KeptContents(spill);
  using collector = new LayerCollector(spill, contents, wants, limits, notes);
  const layerBytes = await streamLayer(await open(), expected, collector, limits);
  collector.settle();

  const sections = new Sections(spill);
  const entriesWriter = new EntriesWriter(sections.emitter("entries"));
  const selection = new Map<Cataloger, Selected[]>();
  let entries = 0;
  let lowerLinks = 0;
  for (const entry of resolveLayer(collector.sorter, spill, limits, notes, expected.blobDigest)) {
    entriesWriter.add(entry);
    entries++;
    if (entry.node?.type === "hardlink") lowerLinks++;
    if (entry.node?.type === "file") select(entry, wants, selection, limits, notes);
  }
  entriesWriter.flush();

  const missing = dropWhatDoesNotFit(selection, contents, limits, notes);
  if (missing.size > 0) await streamLayer(await open(), expected, new MissingContents(contents, missing), limits);

  const findings = writeFindings(catalogers, selection, contents, sections, limits, notes, expected.blobDigest);
  const notesWriter = new LinesWriter("notes", sections.emitter("notes"));
  for (const note of notes.notes) notesWriter.add(note);
  notesWriter.flush();

  const facts: LayerFacts = {
    diffId: expected.diffId,
    fingerprint,
    layerBytes,
    tarEntries: collector.tarEntries,
    entries,
    findings,
    lowerLinks,
    notesLeftOut: notes.leftOut,
  };
  const output = new Spill(options.output);
  output.append(Buffer.from(layerDocumentMagic, "latin1"));
  output.append(encodeFrame("facts", Buffer.from(JSON.stringify(facts))));
  const buffer = Buffer.allocUnsafeSlow(copyBytes);
  for (const section of ["findings", "owned", "notes", "entries"] as const) sections.copy(section, output, buffer);
  output.append(encodeFrame("end", Buffer.alloc(0)));
  return { facts, documentBytes: output.sizeBytes };
}

/** Sections are copied in pieces of so many bytes: one buffer, not one for each of thousands of frames, which no collector would see in time. */
const copyBytes = 256 * 1024;

/** A file that a cataloger asked for, and whose bytes it has. */
interface Selected {
  readonly path: string;
  readonly sequence: number;
  readonly size: number;
  readonly mode: number;
}

function select(
  entry: ResolvedEntry,
  wants: PathMatcher<Cataloger>,
  selection: Map<Cataloger, Selected[]>,
  limits: Limits,
  notes: NoteList,
): void {
  const matching = wants.match(entry.key);
  if (matching.length === 0) return;
  const path = pathText(entry.key);
  const { size, mode } = entry.node as LayerNode;
  for (const cataloger of matching) {
    if (size > Math.min(cataloger.fileBytesMax, limits.keptFileBytesMax)) {
      notes.add("content-too-large", path);
      continue;
    }
    const files = selection.get(cataloger) ?? [];
    files.push({ path, sequence: entry.contentSequence, size, mode });
    selection.set(cataloger, files);
  }
}

/** Sequences of the selected files whose content is still to be kept; files beyond the limit of a layer leave the selection. */
function dropWhatDoesNotFit(
  selection: Map<Cataloger, Selected[]>,
  contents: KeptContents,
  limits: Limits,
  notes: NoteList,
): Set<number> {
  const missing = new Set<number>();
  let left = limits.keptLayerBytesMax - contents.totalBytes;
  for (const [cataloger, files] of selection) {
    const fitting = files.filter(({ path, sequence, size }) => {
      if (contents.has(sequence) || missing.has(sequence)) return true;
      if (size > left) {
        notes.add("content-too-large", path);
        return false;
      }
      left -= size;
      missing.add(sequence);
      return true;
    });
    selection.set(cataloger, fitting);
  }
  return missing;
}

function writeFindings(
  catalogers: readonly Cataloger[],
  selection: ReadonlyMap<Cataloger, readonly Selected[]>,
  contents: KeptContents,
  sections: Sections,
  limits: Limits,
  notes: NoteList,
  layer: string,
): number {
  const heads = new LinesWriter("findings", sections.emitter("findings"));
  const lists = new LinesWriter("owned", sections.emitter("owned"));
  let ordinal = 0;
  for (const cataloger of catalogers) {
    const files = selection.get(cataloger);
    if (!files?.length) continue;
    for (const { files: owned, ...finding } of findingsOf(cataloger, files, contents)) {
      if (finding.kind === "problem")
        notes.add("cataloger-problem", finding.path, `${cataloger.name}: ${problemText(finding)}`);
      if (ordinal >= limits.findingsMax) {
        throw new StowageError("LIMIT_EXCEEDED", { limit: "findingsMax", max: limits.findingsMax, where: layer });
      }
      heads.add({
        kind: finding.kind,
        cataloger: cataloger.name,
        path: finding.path,
        value: finding.value,
        ...(owned ? { hasFiles: true } : {}),
      });
      if (owned) lists.add({ ordinal, files: owned });
      ordinal++;
    }
  }
  heads.flush();
  lists.flush();
  return ordinal;
}

/** A cataloger that fails costs its findings, not the layer. */
function* findingsOf(cataloger: Cataloger, files: readonly Selected[], contents: KeptContents): Generator<Finding> {
  const sorted = files.toSorted((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  const byPath = new Map<string, SelectedFile>();
  for (const { path, sequence, size, mode } of sorted) {
    byPath.set(path, { path, sizeBytes: size, mode, read: () => contents.read(sequence) });
  }
  const selected: SelectedFiles = {
    get: (path) => byPath.get(path),
    [Symbol.iterator]: () => byPath.values(),
  };
  try {
    yield* cataloger.catalog(selected);
  } catch (error) {
    if (error instanceof StowageError) throw error;
    yield { kind: "problem", path: sorted[0]?.path ?? "", value: { text: messageOf(error) } };
  }
}

function problemText({ value }: Finding): string {
  return typeof value === "object" && value !== null && "text" in value ? String(value.text) : JSON.stringify(value);
}

/** Parts of the document, gathered on the spill until their order can be written. */
class Sections {
  readonly #spill: Spill;
  readonly #parts = new Map<string, { offset: number; length: number }[]>();

  constructor(spill: Spill) {
    this.#spill = spill;
  }

  emitter(section: string): (frame: Buffer) => void {
    const parts: { offset: number; length: number }[] = [];
    this.#parts.set(section, parts);
    return (frame) => {
      const { length } = frame;
      const offset = this.#spill.append(frame);
      freeBytes(frame);
      const last = parts.at(-1);
      if (last !== undefined && last.offset + last.length === offset) last.length += length;
      else parts.push({ offset, length });
    };
  }

  copy(section: string, output: Spill, buffer: Buffer): void {
    for (const { offset, length } of this.#parts.get(section) ?? []) this.#spill.copy(offset, length, output, buffer);
  }
}
