import type { Database, HeldLock } from "../db/index.ts";
import { layerRef, markDamaged, markLayerLost, ownerOf, storedLayer } from "../images/index.ts";
import { checkLayerDocument } from "../layer/index.ts";
import type { ObjectRef, ObjectStore } from "../objects/index.ts";
import type { Call, Progress } from "../runtime/index.ts";
import { isDamage, readThrough } from "./damage.ts";
import { forgetLayer } from "./rows.ts";

/** How long to wait for another process that analyses the same layer before saying so again. */
const lockPatienceMs = 10_000;

/** Whoever analyses a layer, or judges its document, has its lock. */
export async function lockLayer(database: Database, key: string, progress: Progress, call: Call): Promise<HeldLock> {
  for (;;) {
    const lock = await database.lock(`layer ${key}`, "exclusive", lockPatienceMs, call);
    if (lock) return lock;
    progress.tell("another stowage is analysing a layer of this image; waiting for it");
  }
}

/**
 * Forgets a layer's document if it can't be read, so that the layer is read again, and marks the images that stand on it. Judged under the
 * layer's lock: nobody can have made it anew meanwhile. False when it can be read.
 */
export async function forgetIfDamaged(
  database: Database,
  store: ObjectStore,
  key: string,
  progress: Progress,
  call: Call,
): Promise<boolean> {
  await using _ = await lockLayer(database, key, progress, call);
  if (await isReadable(() => checkLayerDocument(storedLayer(store, key, call)))) return false;
  await database.transaction(async (tx) => {
    await forgetLayer(tx, key);
    await store.retire(tx, layerRef(key));
    await markLayerLost(tx, key);
  }, call);
  return true;
}

/**
 * What becomes of a document that can't be read and has no copy: a layer is forgotten, an image marked; analysing the image again then makes it
 * anew. False when the document stays as it is: it can be read after all, belongs to nobody, or can't be made again.
 */
export async function giveUpDocument(
  database: Database,
  store: ObjectStore,
  ref: ObjectRef,
  progress: Progress,
  call: Call,
): Promise<boolean> {
  const owner = ownerOf(ref);
  if (owner === undefined) return false;
  if (owner.kind === "layer") return await forgetIfDamaged(database, store, owner.layerKey, progress, call);
  const isLost = async () => !(await isReadable(() => readThrough(store, ref, call)));
  return await database.transaction((tx) => markDamaged(tx, owner.account, owner.digest, isLost), call);
}

async function isReadable(read: () => Promise<unknown>): Promise<boolean> {
  try {
    await read();
    return true;
  } catch (error) {
    if (isDamage(error)) return false;
    throw error;
  }
}
