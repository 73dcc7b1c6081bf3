/** Which objects a migration moves, and where to. */
export interface Selection {
  /** Objects that lie here… */
  readonly sourceBackendId: number;
  /** …go there… */
  readonly destinationBackendId: number;
  /** …but those of bucket `analysis_archive` there. */
  readonly archiveBackendId: number;
  /** Only these buckets; all when left out. */
  readonly buckets?: readonly string[];
  readonly account?: string;
  /** Written at or after, and before. */
  readonly since?: Date;
  readonly until?: Date;
}

/** The stores that a configuration names, as registered backends. */
export interface StoreBackends {
  readonly workingSet: number;
  /** The working set's own where no other is configured. */
  readonly archive: number;
}

export interface SelectionFlags {
  readonly fromAnalysisArchive: boolean;
  readonly toAnalysisArchive: boolean;
  readonly buckets: readonly string[];
  readonly account?: string;
  readonly since?: Date;
  readonly until?: Date;
}

const archiveBucket = "analysis_archive";

/**
 * What the operator means with the flags of `objectstorage migrate`: objects are selected by where they are recorded to lie, never by a driver's name.
 *
 * | flags | selected | go to |
 * |---|---|---|
 * | none | all in the source's working-set backend | the destination's working-set backend; archives to its archive backend |
 * | `--to-analysis-archive` | archives in the source's working-set backend; other buckets only if named | the destination's archive backend |
 * | `--from-analysis-archive` | all in the source's archive backend | as without flags |
 * | both | all in the source's archive backend | the destination's archive backend |
 */
export function selectionOf(flags: SelectionFlags, source: StoreBackends, destination: StoreBackends): Selection {
  const { fromAnalysisArchive, toAnalysisArchive, buckets: named, account, since, until } = flags;
  const onlyArchives = toAnalysisArchive && !fromAnalysisArchive && named.length === 0;
  const buckets = onlyArchives ? [archiveBucket] : named;
  return {
    sourceBackendId: fromAnalysisArchive ? source.archive : source.workingSet,
    destinationBackendId: toAnalysisArchive ? destination.archive : destination.workingSet,
    archiveBackendId: destination.archive,
    ...(buckets.length === 0 ? {} : { buckets }),
    ...(account === undefined ? {} : { account }),
    ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }),
  };
}

/** Nothing of it could move, wherever it lies. */
export function isSamePlace({ sourceBackendId, destinationBackendId, archiveBackendId, buckets }: Selection): boolean {
  const mayHave = (isAsked: (bucket: string) => boolean) => buckets === undefined || buckets.some(isAsked);
  return (
    !(mayHave((bucket) => bucket !== archiveBucket) && destinationBackendId !== sourceBackendId) &&
    !(mayHave((bucket) => bucket === archiveBucket) && archiveBackendId !== sourceBackendId)
  );
}
