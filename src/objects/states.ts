import type { LocationState } from "../db/index.ts";

/**
 * The states of a location, which is where the bytes of one version of one object lie.
 *
 * | state | durable | a crash leaves | who goes on |
 * |---|---|---|---|
 * | `pending` | row with backend, key, lease | perhaps bytes | its writer; after the lease ends the reaper → `deleting` |
 * | `live` | pointer, both digests | – | – |
 * | `retired` | the pointer has left, since when (database clock) | readable bytes | the reaper → `deleting` when the grace period is over |
 * | `kept` | as retired, by a migration that deletes nothing | readable bytes | never reaped; retired when the object is overwritten or deleted, or on demand |
 * | `deleting` | the decision, committed before any byte goes | perhaps bytes | the reaper deletes the bytes, then removes the row |
 *
 * A location that was never proven can still receive its bytes while it is `deleting`, from a writer that was believed dead: it is deleted once
 * more when that is too late to happen, and only then its row goes.
 */
export const transitions: Readonly<Record<LocationState, readonly LocationState[]>> = {
  pending: ["live", "deleting"],
  live: ["retired", "kept"],
  retired: ["deleting"],
  kept: ["retired"],
  deleting: [],
};
