import { isCode } from "../errors/index.ts";
import type { ObjectRef, ObjectStore } from "../objects/index.ts";
import type { Call } from "../runtime/index.ts";

/** Whether a stored document is missing or damaged: to make it again helps, to try again does not. */
export function isDamage(error: unknown): boolean {
  return isCode(error, "OBJECT_NOT_FOUND", "OBJECT_DIGEST_MISMATCH", "BACKEND_KEY_MISSING", "LAYER_DOCUMENT_INVALID");
}

/** Reads an object to its end, where the store has checked its digest. */
export async function readThrough(store: ObjectStore, ref: ObjectRef, call: Call): Promise<void> {
  const { body } = await store.get(ref, call);
  for await (const _ of body);
}
