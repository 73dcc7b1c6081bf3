import type { Database } from "../db/index.ts";
import { layerRef } from "../images/index.ts";
import type { ObjectStore } from "../objects/index.ts";
import { type Call, throwIfAborted } from "../runtime/index.ts";
import { forgetUnusedLayers, unusedLayers } from "./rows.ts";

/** An analysis between two of its steps must not lose a layer: nothing used more recently is taken. */
const graceSeconds = 900;

/**
 * Retires the documents of layers that no image stands on any more and nobody used lately; a bounded pass. Returns how many.
 * Where `isAlone`, no analysis is at work.
 */
export function retireUnusedLayers(
  database: Database,
  store: ObjectStore,
  { limit, isAlone }: { readonly limit: number; readonly isAlone: boolean },
  call: Call,
): Promise<number> {
  return database.transaction(async (tx) => {
    const keys = await forgetUnusedLayers(tx, isAlone ? 0 : graceSeconds, limit);
    for (const key of keys) await store.retire(tx, layerRef(key));
    return keys.length;
  }, call);
}

/** Documents of layers that no image stands on. */
export interface UnusedLayers {
  readonly documents: number;
  readonly bytes: number;
}

const pageSize = 100;

/** What {@link retireUnusedLayers} would retire now, and what later. */
export async function previewUnusedLayers(
  database: Database,
  store: ObjectStore,
  call: Call,
): Promise<{ readonly due: UnusedLayers; readonly later: UnusedLayers & { readonly dueInSeconds: number } }> {
  const due = { documents: 0, bytes: 0 };
  const later = { documents: 0, bytes: 0, dueInSeconds: 0 };
  let after = "";
  for (;;) {
    throwIfAborted(call);
    const page = await unusedLayers(database, graceSeconds, after, pageSize);
    for (const { layerKey, dueInSeconds } of page) {
      const sum = dueInSeconds === 0 ? due : later;
      sum.documents++;
      sum.bytes += (await store.find(layerRef(layerKey), call))?.storedBytes ?? 0;
      later.dueInSeconds = Math.max(later.dueInSeconds, dueInSeconds);
    }
    if (page.length < pageSize) return { due, later };
    after = page.at(-1)?.layerKey ?? "";
  }
}
