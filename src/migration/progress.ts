import type { Move } from "./moves.ts";
import type { MigrationRecord, MoveCounts } from "./rows.ts";

export interface MigrationSnapshot {
  readonly id: number;
  readonly phase:
    | "planning"
    | "moving"
    | "trying again"
    | "waiting for writers"
    | "waiting for readers"
    | "paused"
    | "ended";
  readonly objects: number;
  readonly bytes: number;
  /** At their destination, or superseded. */
  readonly objectsDone: number;
  readonly bytesDone: number;
  /** These, and what was copied since and has still to be verified and switched. Shows between two batches that something happens. */
  readonly bytesCopied: number;
  /** Objects that could not go on, until now; some may still go through. */
  readonly failures: number;
  /** Until when readers may need the last of the sources. */
  readonly waitsUntil?: Date;
}

/** How far a migration is, told to whoever watches it. */
export interface ProgressKeeper {
  phase(now: MigrationSnapshot["phase"], waitsUntil?: Date): void;
  planned(totals: { readonly objects: number; readonly bytes: number }): void;
  /** A place can't be used, or can again. */
  paused(isPaused: boolean): void;
  moved(moves: readonly Move[]): void;
  failed(sourceLocationIds: readonly number[]): void;
  mended(sourceLocationIds: readonly number[]): void;
  copied(bytes: number): void;
}

export function progressOf(
  record: MigrationRecord & { readonly counts: MoveCounts },
  watch: (snapshot: MigrationSnapshot) => void,
): ProgressKeeper {
  const { counts } = record;
  let phase: MigrationSnapshot["phase"] = "moving";
  let objectsDone = counts.switched.objects + counts.done.objects + counts.superseded.objects;
  let bytesDone = counts.switched.bytes + counts.done.bytes + counts.superseded.bytes;
  let bytesCopied = bytesDone;
  const failing = new Set<number>();
  let isPaused = false;
  let waitsUntil: Date | undefined;
  const { id } = record;
  let { objects, bytes } = record;
  const tell = () => {
    const wait = waitsUntil === undefined ? {} : { waitsUntil };
    const now = isPaused ? "paused" : phase;
    watch({ id, phase: now, objects, bytes, objectsDone, bytesDone, bytesCopied, failures: failing.size, ...wait });
  };
  return {
    phase(now, until) {
      phase = now;
      waitsUntil = until;
      tell();
    },
    planned(totals) {
      objects = totals.objects;
      bytes = totals.bytes;
      tell();
    },
    paused(isIt) {
      isPaused = isIt;
      tell();
    },
    failed(ids) {
      for (const each of ids) failing.add(each);
      if (ids.length > 0) tell();
    },
    mended(ids) {
      for (const each of ids) failing.delete(each);
    },
    moved(moves) {
      objectsDone += moves.length;
      bytesDone += moves.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
      // What was copied in an earlier life, or could not be verified and is copied again, makes the sum no more than a guess.
      bytesCopied = Math.max(bytesDone, bytesCopied);
      tell();
    },
    copied(copiedBytes) {
      bytesCopied = Math.min(bytes, bytesCopied + copiedBytes);
      tell();
    },
  };
}
