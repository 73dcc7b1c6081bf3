import type { MoveState } from "../db/index.ts";

/**
 * The way of one object from its source to its destination. A row each; every step is idempotent, and each batch of rows is durable before the next step
 * depends on it.
 *
 * | move | durable once the row says so | a crash leaves | then |
 * |---|---|---|---|
 * | `planned` | object version, source location, sizes, content digest; the destination location, once it is intended | perhaps bytes at a destination location that the migration holds | that location is released to the reaper, another is intended |
 * | `copied` | what was written at the destination, and its bytes | bytes not yet proven | they are read back |
 * | `verified` | they were read back and are right | readers still at the source | the pointer is moved, by compare-and-set |
 * | `switched` | the pointer at the destination, the source retired, in one transaction | the source's bytes, unused | they are deleted: at once when nobody else has the store open, else by the reaper when the grace period of readers is over |
 * | `done` | the source is gone, or kept because that was asked for | – | – |
 * | `superseded` | the object changed, moved or went meanwhile | a copy that is released to the reaper | what lies at the source now is planned as another move |
 * | `abandoned` | the migration was cancelled before the switch | the same | – |
 *
 * A failure is a code, a text and a count of attempts beside the state, so that work done is not forgotten.
 */
export const unfinished = ["planned", "copied", "verified", "switched"] as const satisfies readonly MoveState[];

export interface Move {
  readonly sourceLocationId: number;
  readonly sourceBackendId: number;
  readonly destinationBackendId: number;
  readonly destinationLocationId: number | undefined;
  readonly storedBytes: number;
  readonly state: MoveState;
}
