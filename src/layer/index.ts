/**
 * Layers: a blob becomes a verified layer document in one pass; documents of an image are merged into its squashed view as streams.
 * Nothing is ever written under a name that an image chose, and memory is bounded whatever the layer's size.
 */
export { analyzeLayer, type LayerAnalysis, type LayerAnalysisOptions } from "./analyze-layer.ts";
export {
  type CatalogedFinding,
  checkLayerDocument,
  type LayerDocument,
  type LayerFacts,
  LayerReading,
  type LayerSummary,
  LinesWriter,
  type MergeLayer,
  parseLines,
  readOwnedFiles,
} from "./document.ts";
export type { EntryType, LayerNode, MergedEntry } from "./entry.ts";
export type {
  AskedPaths,
  Cataloger,
  Distribution,
  Finding,
  ImageFindings,
  JsonValue,
  LayerFinding,
  OwnedFile,
  OwnedReference,
  Package,
  PackageType,
  SelectedFile,
  SelectedFiles,
} from "./findings.ts";
export { encodeFrame, type Frame, readFrames } from "./frames.ts";
export type { ExpectedLayer } from "./layer-stream.ts";
export { mergeLayers } from "./merge.ts";
export { type Note, type NoteCode, NoteList } from "./notes.ts";
export { type PathKey, parsePathText, pathText } from "./path.ts";
export { bytesToText, decodePathText } from "./path-text.ts";
export { closeSpill, openSpill, readSpill, streamSpill } from "./spill.ts";
