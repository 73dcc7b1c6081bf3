import { createHash } from "node:crypto";
import type { Limits } from "../config/index.ts";
import type { Cataloger } from "../layer/index.ts";

/** Raised whenever the same layer could give another document for a reason that no cataloger's version tells. */
const analyzerVersion = 2;

/**
 * What decides a layer document besides the layer's bytes: the analyser's version, the catalogers, and those limits that leave something out
 * instead of refusing. 16 hex digits.
 */
export function fingerprintOf(catalogers: readonly Cataloger[], limits: Limits): string {
  const { keptFileBytesMax, keptLayerBytesMax, notesMax } = limits;
  const parts = {
    analyzerVersion,
    catalogers: catalogers.map(({ name, version, wants, fileBytesMax }) => ({ name, version, wants, fileBytesMax })),
    limits: { keptFileBytesMax, keptLayerBytesMax, notesMax },
  };
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 16);
}
