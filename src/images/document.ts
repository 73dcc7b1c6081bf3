import type { Readable } from "node:stream";
import { StowageError } from "../errors/index.ts";
import {
  type Distribution,
  encodeFrame,
  type JsonValue,
  LinesWriter,
  type Note,
  type Package,
  parseLines,
  readFrames,
} from "../layer/index.ts";

/**
 * The analysis document: what merging an image's layers decided. Packages, distribution, users, files that run as somebody else, notes; not the
 * files, which merging the layer documents again answers, and not the lists of owned files, which stay in the layer documents that hold them.
 * Frames of facts, packages, notes, as `docs/formats.md` describes them.
 */
const analysisDocumentMagic = "STOWIMG1";

export interface AnalysisFacts {
  readonly formatVersion: 1;
  readonly digest: string;
  readonly imageId: string;
  readonly fingerprint: string;
  /** Keys of the layer documents, lowest first; null for a layer that was not fetched. */
  readonly layerKeys: readonly (string | null)[];
  readonly distribution?: Distribution;
  /** Names in the squashed view. */
  readonly files: number;
  /** Bytes of its regular files. */
  readonly fileBytes: number;
  readonly suidFiles: readonly { readonly path: string; readonly mode: string }[];
  /** How many more there were. */
  readonly suidFilesLeftOut: number;
  /** The image's configuration as its author wrote it. */
  readonly config: JsonValue;
  /** What catalogers found besides packages, by kind. */
  readonly other: Readonly<Record<string, JsonValue>>;
  readonly notesLeftOut: number;
}

/** A note of an image; `layer` is the position of the layer it is about. */
export interface ImageNote extends Omit<Note, "code"> {
  readonly code: string;
  readonly layer?: number;
}

export interface AnalysisDocument {
  readonly facts: AnalysisFacts;
  readonly packages: readonly Package[];
  readonly notes: readonly ImageNote[];
}

export function encodeAnalysisDocument({ facts, packages, notes }: AnalysisDocument): Buffer {
  const parts: Buffer[] = [Buffer.from(analysisDocumentMagic, "latin1")];
  const emit = (frame: Buffer) => parts.push(frame);
  emit(encodeFrame("facts", Buffer.from(JSON.stringify(facts))));
  const packageLines = new LinesWriter("packages", emit);
  for (const record of packages) packageLines.add(record);
  packageLines.flush();
  const noteLines = new LinesWriter("notes", emit);
  for (const note of notes) noteLines.add(note);
  noteLines.flush();
  emit(encodeFrame("end", Buffer.alloc(0)));
  return Buffer.concat(parts);
}

/** @throws StowageError `LAYER_DOCUMENT_INVALID` */
export async function readAnalysisDocument(body: Readable, name: string): Promise<AnalysisDocument> {
  let facts: AnalysisFacts | undefined;
  const packages: Package[] = [];
  const notes: ImageNote[] = [];
  for await (const { kind, content } of readFrames(body as AsyncIterable<Buffer>, analysisDocumentMagic, name)) {
    if (kind === "facts") facts = JSON.parse(content.toString()) as AnalysisFacts;
    else if (kind === "packages") for (const record of parseLines<Package>(content)) packages.push(record);
    else if (kind === "notes") for (const note of parseLines<ImageNote>(content)) notes.push(note);
  }
  if (!facts) throw new StowageError("LAYER_DOCUMENT_INVALID", { document: name, reason: "it has no facts" });
  return { facts, packages, notes };
}
