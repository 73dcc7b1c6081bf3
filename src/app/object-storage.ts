import type { UnusedLayers } from "../analysis/index.ts";
import type { StowageError } from "../errors/index.ts";
import type {
  CompactionReport,
  Reclaimable,
  Reclaimed,
  ScrubPlan,
  ScrubReport,
  UsageReport,
} from "../objects/index.ts";
import type { Call, Progress, ProgressTask } from "../runtime/index.ts";

/** What nothing needs any more, before it is collected. */
export interface GarbagePreview {
  /** Layer documents that no image stands on: first retired, then reclaimed as the rest. */
  readonly unusedLayers: {
    readonly due: UnusedLayers;
    readonly later: UnusedLayers & { readonly dueInSeconds: number };
  };
  readonly stored: readonly GarbageAtBackend[];
}

export type GarbageAtBackend = Omit<Reclaimable, "backendId"> & { readonly place: string };

export interface CollectOptions {
  /** Give the database's free space back to the operating system. */
  readonly compact: boolean;
  readonly progress: Progress;
}

export interface CollectionReport {
  /** Layer documents that no image stood on. */
  readonly layersRetired: number;
  readonly reclaimed: readonly (Reclaimed & { readonly place: string })[];
  /** Backends whose bytes could not be deleted, with the first reason of each. */
  readonly failures: readonly BackendFailure[];
  /** What has to wait. */
  readonly left: GarbagePreview;
  readonly compaction?: CompactionReport;
}

export interface BackendFailure {
  readonly place: string;
  readonly error: StowageError;
}

export interface ScrubChoice {
  /** Of the objects, from 0 to 1. */
  readonly share: number;
  readonly bytesPerSecondMax?: number;
  /** Mend from copies, else have it made anew. */
  readonly repair: boolean;
  /** Begin anew instead of going on with an interrupted one. */
  readonly restart: boolean;
  /** Told what is about to be read. */
  readonly begin: (plan: ScrubPlan) => ProgressTask;
  readonly progress: Progress;
}

export interface ScrubSummary extends Omit<ScrubReport, "failures" | "findings"> {
  /** The first ones. */
  readonly findings: readonly (Omit<ScrubReport["findings"][number], "backendId" | "backend"> & {
    readonly place: string;
  })[];
  /** Backends that could not be looked at. */
  readonly failures: readonly BackendFailure[];
  /** How many images have to be analysed again. */
  readonly damagedImages: number;
  /** The first of them. */
  readonly images: readonly {
    readonly digest: string;
    readonly fullTags: readonly string[];
    readonly damage: string;
  }[];
}

/** Looks after the stores that hold the documents. */
export interface ObjectStorage {
  /** What is kept, where, and what the backends really hold; these are listed only when `look` is true. */
  usage(look: boolean, call: Call): Promise<UsageReport>;
  previewGarbage(call: Call): Promise<GarbagePreview>;
  /** Retires what no image needs and deletes all that is due, until nothing is left. Safe beside running writers. */
  collectGarbage(options: CollectOptions, call: Call): Promise<CollectionReport>;
  /** Reads everything back, or a share of it. */
  scrub(choice: ScrubChoice, call: Call): Promise<ScrubSummary>;
  /** Makes all configured backends this database's, and no copy's of it. Returns their places. */
  claim(call: Call): Promise<readonly string[]>;
}
