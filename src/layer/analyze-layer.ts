import type { Limits } from "../config/index.ts";
import { messageOf, StowageError } from "../errors/index.ts";
import { freeBytes } from "./bytes.ts";
import { ContentDigester, KeptContents } from "./content.ts";
import { EntriesWriter, type LayerFacts, LinesWriter, layerDocumentMagic } from "./document.ts";
import type { EntryType, LayerNode } from "./entry.ts";
import type { Cataloger, Finding, SelectedFile, SelectedFiles } from "./findings.ts";
import { encodeFrame } from "./frames.ts";
import { type ExpectedLayer, streamLayer } from "./layer-stream.ts";
import { type NoteCode, NoteList } from "./notes.ts";
import { baseOf, joinPath, type PathKey, parentOf, parsePath, pathText } from "./path.ts";
import { bytesToText } from "./path-text.ts";
import { PathMatcher } from "./patterns.ts";
import { type ResolvedEntry, resolveLayer } from "./resolve.ts";
import { RecordSorter } from "./sorter.ts";
import { Spill } from "./spill.ts";
import type { TarEntry, TarHandler } from "./tar-reader.ts";

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
  const collector = new LayerCollector(spill, contents, wants, limits, notes);
  const layerBytes = await streamLayer(await open(), expected, collector, limits);

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

const typesByFlag: Readonly<Record<string, EntryType>> = {
  "0": "file",
  "7": "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "char",
  "4": "block",
  "5": "dir",
  "6": "fifo",
};

/** Turns tar entries into sort records, and keeps what catalogers want. */
class LayerCollector implements TarHandler {
  readonly sorter: RecordSorter;
  tarEntries = 0;
  readonly #contents: KeptContents;
  readonly #wants: PathMatcher<Cataloger>;
  readonly #limits: Limits;
  readonly #notes: NoteList;
  readonly #digester = new ContentDigester();
  #file: { key: PathKey; entry: TarEntry; isKept: boolean } | undefined;

  constructor(spill: Spill, contents: KeptContents, wants: PathMatcher<Cataloger>, limits: Limits, notes: NoteList) {
    this.sorter = new RecordSorter(spill);
    this.#contents = contents;
    this.#wants = wants;
    this.#limits = limits;
    this.#notes = notes;
  }

  begin(entry: TarEntry): void {
    this.tarEntries++;
    this.#file = undefined;
    const key = parsePath(entry.name);
    const base = baseOf(key);
    const isRoot = key === "" && entry.typeflag !== "5";
    if (entry.name === "" || isRoot) this.#note("empty-name", key);
    else if (base.startsWith(".wh.")) this.#mark(key, base);
    else this.#entry(key, entry);
  }

  content(bytes: Buffer): void {
    if (!this.#file) return;
    this.#digester.update(bytes);
    if (this.#file.isKept) this.#contents.add(bytes);
  }

  finish(): void {
    if (!this.#file) return;
    const { key, entry, isKept } = this.#file;
    this.#file = undefined;
    if (isKept) this.#contents.end();
    this.#add(key, nodeOf(entry, "file", this.#digester.end()));
  }

  #mark(key: PathKey, base: string): void {
    if (base === ".wh..wh..opq") this.#record(parentOf(key), "opaque");
    else if (/^\.wh\.{1,3}$/.test(base)) this.#note("bare-whiteout", key);
    else if (base.startsWith(".wh..wh.")) this.#note("whiteout-meta", key);
    else this.#record(joinPath(parentOf(key), base.slice(4)), "whiteout");
  }

  #entry(key: PathKey, entry: TarEntry): void {
    const type = typesByFlag[entry.typeflag];
    if (type === undefined && "VMND".includes(entry.typeflag)) this.#note("ignored-type", key);
    else if (type === undefined || type === "file") {
      if (type === undefined) this.#note("unknown-type", key);
      this.#beginFile(key, entry);
    } else if (type === "hardlink") this.#hardlink(key, entry);
    else if (type === "char" && entry.deviceMajor === 0 && entry.deviceMinor === 0) {
      this.#note("device-whiteout", key);
      this.#record(key, "whiteout");
    } else this.#add(key, nodeOf(entry, type, undefined));
  }

  #beginFile(key: PathKey, entry: TarEntry): void {
    let max = 0;
    for (const { fileBytesMax } of this.#wants.match(key)) max = Math.max(max, fileBytesMax);
    const isKept =
      entry.size <= Math.min(max, this.#limits.keptFileBytesMax) &&
      max > 0 &&
      this.#contents.totalBytes + entry.size <= this.#limits.keptLayerBytesMax;
    this.#file = { key, entry, isKept };
    this.#digester.begin(entry.size);
    if (isKept) this.#contents.begin(this.tarEntries, entry.size);
  }

  #hardlink(key: PathKey, entry: TarEntry): void {
    const target = parsePath(entry.link);
    const node = { ...nodeOf(entry, "hardlink", undefined), link: target };
    if (target === key) return;
    this.#add(key, node);
    this.sorter.add({ key: target, sequence: this.tarEntries, mark: undefined, node, isRequest: true, hops: 0 });
  }

  #add(key: PathKey, node: LayerNode): void {
    this.sorter.add({ key, sequence: this.tarEntries, mark: undefined, node, isRequest: false, hops: 0 });
  }

  #record(key: PathKey, mark: "whiteout" | "opaque"): void {
    this.sorter.add({ key, sequence: this.tarEntries, mark, node: undefined, isRequest: false, hops: 0 });
  }

  #note(code: NoteCode, key: PathKey): void {
    this.#notes.add(code, pathText(key));
  }
}

/** A second pass for files whose content the first could not know to keep. */
class MissingContents implements TarHandler {
  readonly #contents: KeptContents;
  readonly #missing: ReadonlySet<number>;
  #sequence = 0;

  constructor(contents: KeptContents, missing: ReadonlySet<number>) {
    this.#contents = contents;
    this.#missing = missing;
  }

  begin(entry: TarEntry): void {
    this.#sequence++;
    if (this.#missing.has(this.#sequence)) this.#contents.begin(this.#sequence, entry.size);
  }

  content(bytes: Buffer): void {
    if (this.#missing.has(this.#sequence)) this.#contents.add(bytes);
  }

  finish(): void {
    if (this.#missing.has(this.#sequence)) this.#contents.end();
  }
}

function nodeOf(entry: TarEntry, type: EntryType, digests: string | undefined): LayerNode {
  const isDevice = type === "char" || type === "block";
  return {
    type,
    // Linux knows no other mode of a symlink, whatever the entry says.
    mode: type === "symlink" ? 0o777 : entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    mtime: entry.mtime,
    size: type === "file" ? entry.size : 0,
    digests,
    link: type === "symlink" ? entry.link : undefined,
    deviceMajor: isDevice ? entry.deviceMajor : 0,
    deviceMinor: isDevice ? entry.deviceMinor : 0,
    xattrs: relevantXattrs(entry.xattrs),
  };
}

/** Attributes that change what a file may do, or that users put there; an overlay's own marks are none. */
function relevantXattrs(xattrs: ReadonlyMap<string, string>): Record<string, string> | undefined {
  let relevant: Record<string, string> | undefined;
  for (const [name, value] of xattrs) {
    if (!name.startsWith("security.") && !(name.startsWith("user.") && !name.startsWith("user.overlay."))) continue;
    relevant ??= Object.create(null) as Record<string, string>;
    relevant[bytesToText(name)] = value;
  }
  return relevant;
}
