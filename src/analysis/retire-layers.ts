import type { Database } from "../db/index.ts";
import { layerRef } from "../images/index.ts";
import type { ObjectStore } from "../objects/index.ts";
import type { Call } from "../runtime/index.ts";
import { forgetUnusedLayers } from "./rows.ts";

/** An analysis between two of its steps must not lose a layer: nothing used more recently is taken. */
const graceSeconds = 900;

/** Retires the documents of layers that no image stands on any more and nobody used lately; a bounded pass. Returns how many. */
export function retireUnusedLayers(database: Database, store: ObjectStore, limit: number, call: Call): Promise<number> {
  return database.transaction(async (tx) => {
    const keys = await forgetUnusedLayers(tx, graceSeconds, limit);
    for (const key of keys) await store.retire(tx, layerRef(key));
    return keys.length;
  }, call);
}
