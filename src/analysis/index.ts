/**
 * Analysis: from a source of images to a visible image. Each layer is read once, by a worker thread, and its document serves every image that has
 * the layer; one transaction makes an image visible.
 */
export { type AnalysisRequest, Analyzer, type ImageName } from "./analyze-image.ts";
export { LayerPool } from "./layer-pool.ts";
export { giveUpDocument } from "./lost-documents.ts";
export type { AnalysisReport, LayerReport } from "./report.ts";
export { previewUnusedLayers, retireUnusedLayers, type UnusedLayers } from "./retire-layers.ts";
