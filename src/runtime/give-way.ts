import { constants, setPriority } from "node:os";

/** Lets the processors go to other processes first, from now on: this one's work has time, and theirs is waited for. A system that has no such order keeps its own. */
export function giveWay(): void {
  try {
    setPriority(constants.priority.PRIORITY_LOW);
  } catch {
    // It costs others some time, nothing else.
  }
}
