import type { Database } from "../db/index.ts";
import { type StowageError, toStowageError } from "../errors/index.ts";
import { announce, type Call, throwIfAborted } from "../runtime/index.ts";
import type { Backend, Backends } from "./backends.ts";
import type { ObjectDriver } from "./driver.ts";
import { eachAtOnce } from "./each-at-once.ts";
import {
  condemn,
  condemnAtOnce,
  condemned,
  condemnedAmong,
  type LocationRow,
  markDeletedOnce,
  notDeleted,
  postpone,
  removeLocation,
} from "./rows/reaper.ts";
import type { ReapReport } from "./store.ts";

export interface ReapOptions {
  readonly graceSeconds: number;
  readonly lateSeconds: number;
  /** Nobody else has the store open. */
  readonly isAlone: boolean;
}

/** Deletions at one backend at once. */
const concurrency = 8;

/** A pass of at most `limit` locations over the backends: the only thing that deletes bytes. One backend's failure does not keep the others. */
export async function reap(
  database: Database,
  backends: readonly Backend[],
  options: ReapOptions,
  limit: number,
  call: Call,
): Promise<ReapReport> {
  const deleted: { backend: string; blobs: number; bytes: number }[] = [];
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
    const here = { backend: backend.description, blobs: 0, bytes: 0 };
    try {
      const driver = await backend.forDeleting(call);
      await eachAtOnce(locations, concurrency, async (location) => {
        throwIfAborted(call);
        if (await remove(database, driver, location, failed, call)) {
          here.blobs++;
          here.bytes += location.storedBytes ?? 0;
        }
      });
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
  await eachAtOnce(
    await condemnedAmong(database, ids, lateSeconds),
    concurrency,
    async ({ backendId, ...location }) => {
      throwIfAborted(call);
      const failed = (error: unknown) => {
        throwIfAborted(call);
        failures.set(location.id, toStowageError(error));
      };
      try {
        const driver = await (await backends.of(backendId, call)).forDeleting(call);
        await remove(database, driver, location, failed, call);
      } catch (error) {
        failed(error);
      }
    },
  );
  const left = new Set(await notDeleted(database, ids));
  return { gone: ids.filter((id) => !left.has(id)), failures };
}

/** Deletes one; true when its bytes are gone for good. */
async function remove(
  database: Database,
  driver: ObjectDriver,
  { id, physicalKey, storedBytes, isUnsettled }: LocationRow,
  failed: (error: unknown) => void,
  call: Call,
): Promise<boolean> {
  try {
    // Not `delete`: a put that was repeated until it was proven may have left parts of the attempts before.
    await driver.purge(physicalKey, storedBytes, call);
  } catch (error) {
    // One that can't be deleted must not keep the others, in this pass or the next.
    await postpone(database, id);
    failed(error);
    return false;
  }
  announce("objects deleted", { locationId: id });
  if (isUnsettled) await markDeletedOnce(database, id);
  else await removeLocation(database, id);
  announce("objects forgotten", { locationId: id });
  return true;
}
