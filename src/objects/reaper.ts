import type { Database } from "../db/index.ts";
import { type StowageError, toStowageError } from "../errors/index.ts";
import { announce, type Call, eachAtOnce, throwIfAborted } from "../runtime/index.ts";
import type { Backend, Backends } from "./backends.ts";
import type { ObjectDriver, PhysicalKey } from "./driver.ts";
import {
  condemn,
  condemnAtOnce,
  condemned,
  condemnedAmong,
  type LocationRow,
  markDeletedOnce,
  notDeleted,
  postpone,
  removeLocations,
} from "./rows/reaper.ts";
import type { ReapReport } from "./store.ts";

export interface ReapOptions {
  readonly graceSeconds: number;
  readonly lateSeconds: number;
  /** Nobody else has the store open. */
  readonly isAlone: boolean;
}

/** Deletions at one backend at once, where it does not do many in one request. */
const concurrency = 8;
/** Locations whose rows go in one statement, after the bytes of all of them. */
const batchSize = 128;

/** A pass of at most `limit` locations over the backends: the only thing that deletes bytes. One backend's failure does not keep the others. */
export async function reap(
  database: Database,
  backends: readonly Backend[],
  options: ReapOptions,
  limit: number,
  call: Call,
): Promise<ReapReport> {
  const deleted: ReapReport["backends"][number][] = [];
  let isMoreLeft = false;
  const failures: { backend: string; error: StowageError }[] = [];
  for (const backend of backends) {
    const failed = (error: unknown) => {
      throwIfAborted(call);
      if (!failures.some((failure) => failure.backend === backend.description)) {
        failures.push({ backend: backend.description, error: toStowageError(error) });
      }
    };
    const decided = await condemn(database, backend.id, options, limit);
    if (decided > 0) announce("objects deleting", { count: decided });
    // What a shared backend is told twice may arrive twice; a database's statements do not.
    const repeats = backend.name !== "db";
    const locations = await condemned(database, backend.id, { lateSeconds: options.lateSeconds, repeats }, limit);
    isMoreLeft ||= decided === limit || locations.length === limit;
    if (locations.length === 0) continue;
    const here = { backend: backend.description, blobs: 0, bytes: 0, unmeasured: 0 };
    try {
      const driver = await backend.forDeleting(call);
      for (let at = 0; at < locations.length; at += batchSize) {
        const gone = await remove(database, driver, locations.slice(at, at + batchSize), failed, call);
        here.blobs += gone.length;
        here.unmeasured += gone.filter(({ storedBytes }) => storedBytes === undefined).length;
        here.bytes += gone.reduce((sum, { storedBytes }) => sum + (storedBytes ?? 0), 0);
      }
    } catch (error) {
      failed(error);
    }
    if (here.blobs > 0) deleted.push(here);
  }
  const blobsDeleted = deleted.reduce((sum, { blobs }) => sum + blobs, 0);
  const bytesDeleted = deleted.reduce((sum, { bytes }) => sum + bytes, 0);
  return { blobsDeleted, bytesDeleted, backends: deleted, isMoreLeft, failures };
}

/**
 * Deletes retired locations without a grace period, and those of them whose deletion was decided before. Returns which are gone (nothing but a second
 * deletion may be left to do), and why others are not.
 */
export async function deleteAtOnce(
  database: Database,
  backends: Backends,
  ids: readonly number[],
  lateSeconds: number,
  call: Call,
): Promise<{ readonly gone: readonly number[]; readonly failures: ReadonlyMap<number, StowageError> }> {
  await condemnAtOnce(database, ids);
  announce("objects deleting", { count: ids.length });
  const failures = new Map<number, StowageError>();
  const failed = (error: unknown, { id }: LocationRow) => failures.set(id, toStowageError(error));
  const places = Map.groupBy(await condemnedAmong(database, ids, lateSeconds), ({ backendId }) => backendId);
  for (const [backendId, locations] of places) {
    try {
      const driver = await (await backends.of(backendId, call)).forDeleting(call);
      await remove(database, driver, locations, failed, call);
    } catch (error) {
      throwIfAborted(call);
      for (const location of locations) failed(error, location);
    }
  }
  const left = new Set(await notDeleted(database, ids));
  return { gone: ids.filter((id) => !left.has(id)), failures };
}

/** Deletes bytes and then their rows. Returns those that are gone for good; one that can't be deleted must not keep the others, in this pass or the next. */
async function remove(
  database: Database,
  driver: ObjectDriver,
  locations: readonly LocationRow[],
  failed: (error: unknown, location: LocationRow) => void,
  call: Call,
): Promise<readonly LocationRow[]> {
  const gone: LocationRow[] = [];
  const togetherGone = await purgeTogether(driver, locations, call);
  await eachAtOnce(locations, concurrency, async (location) => {
    throwIfAborted(call);
    try {
      // Not `delete`: a put that was repeated until it was proven may have left parts of the attempts before.
      if (!togetherGone.has(location.physicalKey)) await driver.purge(location.physicalKey, location.storedBytes, call);
      gone.push(location);
    } catch (error) {
      throwIfAborted(call);
      await postpone(database, location.id);
      failed(error, location);
    }
  });
  if (gone.length === 0) return gone;
  const [unsettled, settled] = [
    gone.filter(({ isUnsettled }) => isUnsettled),
    gone.filter((each) => !each.isUnsettled),
  ];
  announce("objects deleted", { count: gone.length });
  await markDeletedOnce(database, idsOf(unsettled));
  await removeLocations(database, idsOf(settled));
  announce("objects forgotten", { count: gone.length });
  return gone;
}

/** What can be deleted with few requests. Its failure is nobody's: what is left is deleted one by one, and that says why it can't be. */
async function purgeTogether(
  driver: ObjectDriver,
  locations: readonly LocationRow[],
  call: Call,
): Promise<ReadonlySet<PhysicalKey>> {
  const blobs = locations.map(({ physicalKey, storedBytes }) => ({ key: physicalKey, sizeBytes: storedBytes }));
  try {
    return (await driver.purgeMany?.(blobs, call)) ?? new Set();
  } catch (error) {
    throwIfAborted(call);
    call.log.debug({ err: error, driver: driver.name, blobs: blobs.length }, "blobs not deleted together");
    return new Set();
  }
}

function idsOf(locations: readonly LocationRow[]): readonly number[] {
  return locations.map(({ id }) => id);
}
