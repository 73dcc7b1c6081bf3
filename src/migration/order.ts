import type { MigrationOptions, PlaceName } from "./rows.ts";
import type { Selection } from "./selection.ts";

/** A migration as it is given. */
export interface MigrationOrder {
  readonly selection: Selection;
  readonly source: PlaceName;
  readonly destination: PlaceName;
  readonly keepsSources: boolean;
  readonly verify: "readback" | "checksum";
  /** Others read and write meanwhile: new objects go to the destination from the start, sources stay until the grace period of readers is over. */
  readonly isOnline: boolean;
  readonly files: readonly [source: string, destination: string];
}

export function selectionFrom({ selection: { since, until, ...rest } }: MigrationOptions): Selection {
  return {
    ...rest,
    ...(since === undefined ? {} : { since: new Date(since) }),
    ...(until === undefined ? {} : { until: new Date(until) }),
  };
}

export function optionsOf({ selection, keepsSources, verify, isOnline, files }: MigrationOrder): MigrationOptions {
  const { since, until, ...rest } = selection;
  return {
    selection: {
      ...rest,
      ...(since === undefined ? {} : { since: since.toISOString() }),
      ...(until === undefined ? {} : { until: until.toISOString() }),
    },
    keepsSources,
    verify,
    isOnline,
    files,
  };
}

/** What makes two orders the same: what is selected, and what becomes of the sources. */
export function canonical({ selection, keepsSources }: MigrationOptions): string {
  const entries = Object.entries(selection).toSorted(([one], [other]) => (one < other ? -1 : 1));
  return JSON.stringify([entries, keepsSources]);
}
