import { messageOf, StowageError } from "../errors/index.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import type { LayerEntry } from "./entry.ts";
import type { LayerFinding, OwnedFile } from "./findings.ts";
import { encodeFrame, type Frame, type FrameKind, readFrames } from "./frames.ts";
import { readNode, writeNode } from "./node-codec.ts";
import type { Note } from "./notes.ts";
import type { PathKey } from "./path.ts";

/**
 * The layer document: all that stowage knows of one layer, a pure function of its bytes and the analyser's fingerprint.
 * In this order: facts, findings, file lists of findings, notes, entries sorted by path. `docs/formats.md` describes it byte by byte.
 */
export const layerDocumentMagic = "STOWLYR1";

export interface LayerFacts {
  readonly diffId: string;
  readonly fingerprint: string;
  /** Uncompressed bytes of the layer. */
  readonly layerBytes: number;
  /** Entries in the tar stream. */
  readonly tarEntries: number;
  /** Paths in the document. */
  readonly entries: number;
  readonly findings: number;
  /** Hard links whose target only lower layers can have. */
  readonly lowerLinks: number;
  readonly notesLeftOut: number;
}

const findingsFrameBytes = 1024 * 1024;
const entriesFrameBytes = 128 * 1024;
const entriesAtOnce = 100;

/** Collects JSON lines into frames of one kind. */
export class LinesWriter {
  readonly #kind: FrameKind;
  readonly #emit: (frame: Buffer) => void;
  #lines: string[] = [];
  #length = 0;

  constructor(kind: FrameKind, emit: (frame: Buffer) => void) {
    this.#kind = kind;
    this.#emit = emit;
  }

  add(value: unknown): void {
    const line = JSON.stringify(value);
    this.#lines.push(line);
    this.#length += line.length + 1;
    if (this.#length >= findingsFrameBytes) this.flush();
  }

  flush(): void {
    if (this.#lines.length === 0) return;
    this.#emit(encodeFrame(this.#kind, Buffer.from(`${this.#lines.join("\n")}\n`)));
    this.#lines = [];
    this.#length = 0;
  }
}

/** The values of a frame of JSON lines. */
export function parseLines<T>(content: Buffer): T[] {
  const values: T[] = [];
  for (let at = 0; at < content.length; ) {
    const end = content.indexOf(0x0a, at);
    if (end < 0) throw new RangeError("a line is cut off");
    values.push(JSON.parse(content.toString("utf8", at, end)) as T);
    at = end + 1;
  }
  return values;
}

/** Writes entries in key order into frames: each path keeps only what differs from the one before it in the same frame. */
export class EntriesWriter {
  readonly #emit: (frame: Buffer) => void;
  readonly #writer = new ByteWriter();
  #previous = "";

  constructor(emit: (frame: Buffer) => void) {
    this.#emit = emit;
  }

  add(entry: LayerEntry): void {
    const shared = sharedPrefix(this.#previous, entry.key);
    this.#writer.varint(shared);
    this.#writer.varint(entry.key.length - shared);
    this.#writer.raw(entry.key, shared);
    this.#writer.byte((entry.isWhiteout ? 1 : 0) | (entry.isOpaque ? 2 : 0) | (entry.node ? 4 : 0));
    if (entry.node) writeNode(this.#writer, entry.node);
    this.#previous = entry.key;
    if (this.#writer.length >= entriesFrameBytes) this.flush();
  }

  flush(): void {
    if (this.#writer.length === 0) return;
    this.#emit(encodeFrame("entries", this.#writer.take()));
    this.#previous = "";
  }
}

function sharedPrefix(a: string, b: string): number {
  const max = Math.min(a.length, b.length);
  let shared = 0;
  while (shared < max && a.charCodeAt(shared) === b.charCodeAt(shared)) shared++;
  return shared;
}

/** In batches so small that they are garbage before a small young generation is full. */
function* parseEntries(content: Buffer): Generator<LayerEntry[]> {
  const reader = new ByteReader(content);
  let entries: LayerEntry[] = [];
  let previous = "";
  while (reader.remaining > 0) {
    const shared = reader.varint();
    const length = reader.varint();
    const key = (previous.slice(0, shared) + reader.raw(length)) as PathKey;
    const flags = reader.byte();
    entries.push({
      key,
      isWhiteout: (flags & 1) !== 0,
      isOpaque: (flags & 2) !== 0,
      node: flags & 4 ? readNode(reader) : undefined,
    });
    previous = key;
    if (entries.length < entriesAtOnce) continue;
    yield entries;
    entries = [];
  }
  if (entries.length > 0) yield entries;
}

/** A stored finding without its ordinal, as it stands in the document. */
interface StoredFinding {
  readonly kind: string;
  readonly cataloger: string;
  readonly path: string;
  readonly value: LayerFinding["value"];
  readonly hasFiles?: true;
}

/** A layer document that can be opened any number of times. */
export interface LayerDocument {
  /** For messages. */
  readonly name: string;
  /** A piece need be valid only until the next one is asked for. */
  open(): Promise<AsyncIterable<Buffer>>;
}

export interface CatalogedFinding extends LayerFinding {
  readonly cataloger: string;
}

/** What reconciling needs of a layer; its entries are read by merging. */
export interface LayerSummary {
  readonly facts: LayerFacts;
  readonly findings: readonly CatalogedFinding[];
  readonly notes: readonly Note[];
}

/**
 * One reading of a layer document, front to back: the facts are there, then comes the summary for whoever wants it, then the entries.
 * Disposing of it, or reading the entries to their end, closes it.
 */
export class LayerReading implements AsyncDisposable {
  readonly document: LayerDocument;
  readonly facts: LayerFacts;
  readonly #frames: AsyncGenerator<Frame>;
  /** Read ahead of what was asked for. */
  #next: Frame | undefined;

  private constructor(document: LayerDocument, facts: LayerFacts, frames: AsyncGenerator<Frame>) {
    this.document = document;
    this.facts = facts;
    this.#frames = frames;
  }

  /** @throws StowageError `LAYER_DOCUMENT_INVALID`, and what the document's `open` throws */
  static async open(document: LayerDocument): Promise<LayerReading> {
    const frames = readFrames(await document.open(), layerDocumentMagic, document.name);
    const { value, done } = await frames.next();
    if (!done && value.kind === "facts") {
      const facts = parsed(document, () => JSON.parse(value.content.toString()) as LayerFacts);
      return new LayerReading(document, facts, frames);
    }
    await frames.return(undefined);
    throw new StowageError("LAYER_DOCUMENT_INVALID", { document: document.name, reason: "it has no facts" });
  }

  /** Facts, findings and notes. `layer` is the ordinal that the findings get. */
  async summary(layer: number): Promise<LayerSummary> {
    const findings: CatalogedFinding[] = [];
    const notes: Note[] = [];
    for (let frame = await this.#peek(); frame && frame.kind !== "entries"; frame = await this.#peek()) {
      const { kind, content } = frame;
      this.#next = undefined;
      if (kind === "notes") for (const note of parsed(this.document, () => parseLines<Note>(content))) notes.push(note);
      else if (kind === "findings") {
        for (const { hasFiles, ...finding } of parsed(this.document, () => parseLines<StoredFinding>(content))) {
          findings.push({ ...finding, layer, ordinal: findings.length, hasFiles: hasFiles === true });
        }
      }
    }
    return { facts: this.facts, findings, notes };
  }

  /** The entries, some at a time, in key order. */
  async *entries(): AsyncGenerator<LayerEntry[]> {
    for (let frame = await this.#peek(); frame; frame = await this.#peek()) {
      const { kind, content } = frame;
      this.#next = undefined;
      if (kind !== "entries") continue;
      const batches = parseEntries(content);
      for (;;) {
        const { value, done } = parsed(this.document, () => batches.next());
        if (done) break;
        yield value;
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#frames.return(undefined);
  }

  async #peek(): Promise<Frame | undefined> {
    if (!this.#next) {
      const { value, done } = await this.#frames.next();
      this.#next = done ? undefined : value;
    }
    return this.#next;
  }
}

/** A layer to merge; `undefined` for one that was not fetched. */
export type MergeLayer = LayerReading | undefined;

/** What a frame holds is as much a part of the document as the frame. */
function parsed<T>({ name }: LayerDocument, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new StowageError("LAYER_DOCUMENT_INVALID", { document: name, reason: messageOf(error) }, { cause: error });
  }
}

/** Reads all of a document. @throws StowageError `LAYER_DOCUMENT_INVALID`, and what the document's `open` and its bytes throw */
export async function checkLayerDocument(document: LayerDocument): Promise<void> {
  await using reading = await LayerReading.open(document);
  await reading.summary(0);
  for await (const _ of reading.entries());
}

/** File lists of findings, in order of their ordinals; only `wanted` ones, or all. */
export async function* readOwnedFiles(
  document: LayerDocument,
  wanted?: ReadonlySet<number>,
): AsyncGenerator<{ readonly ordinal: number; readonly files: readonly OwnedFile[] }> {
  for await (const { kind, content } of readFrames(await document.open(), layerDocumentMagic, document.name)) {
    if (kind === "owned") {
      for (const list of parsed(document, () => parseLines<{ ordinal: number; files: OwnedFile[] }>(content))) {
        if (wanted === undefined || wanted.has(list.ordinal)) yield list;
      }
    } else if (kind === "notes" || kind === "entries") return;
  }
}
