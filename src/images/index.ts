/** Images: their rows, tags and layers, the analysis document, and what is in an image, answered from documents alone. */
export {
  type AnalysisDocument,
  type AnalysisFacts,
  encodeAnalysisDocument,
  type ImageNote,
} from "./document.ts";
export { analysisRef, Images, indexRef, layerRef, manifestRef, storedLayer } from "./images.ts";
export {
  holdImage,
  type ImageLayerRecord,
  type ImageRecord,
  listImages,
  type TagName,
  writeImage,
  writeParent,
  writeTag,
} from "./rows.ts";
