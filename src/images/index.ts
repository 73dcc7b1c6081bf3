/** Images: their rows, tags and layers, the analysis document, and what is in an image, answered from documents alone. */
export {
  type AnalysisDocument,
  type AnalysisFacts,
  encodeAnalysisDocument,
  type ImageNote,
} from "./document.ts";
export {
  analysisRef,
  type DocumentOwner,
  Images,
  indexRef,
  layerRef,
  manifestRef,
  ownerOf,
  storedLayer,
} from "./images.ts";
export {
  holdImage,
  type ImageLayerRecord,
  type ImageRecord,
  listDamaged,
  listImages,
  markDamaged,
  markLayerFound,
  markLayerLost,
  type TagName,
  writeImage,
  writeParent,
  writeTag,
} from "./rows.ts";
