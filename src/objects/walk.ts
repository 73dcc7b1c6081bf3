import type { Database } from "../db/index.ts";
import type { Call } from "../runtime/index.ts";
import type { ForeignBlob, ObjectDriver, PhysicalKey, StoredBlob } from "./driver.ts";
import { isMarkerKey } from "./marker.ts";
import { findPlaced, type PlacedRow, placedAfter } from "./rows/walk.ts";

/** What lies under a key at a backend, what the rows say of it, or both. */
export interface Placed {
  readonly key: PhysicalKey;
  readonly listed: StoredBlob | undefined;
  readonly row: PlacedRow | undefined;
}

/**
 * Everything at a backend beside everything that the rows say is there, in the order of the keys, as streams. Markers are left out.
 * What only one side knows is looked up once more: rows are made before their bytes, and removed after them.
 */
export async function* walk(
  database: Database,
  backendId: number,
  driver: ObjectDriver,
  after: PhysicalKey | undefined,
  call: Call,
): AsyncGenerator<Placed> {
  const blobs = driver.list(after, call)[Symbol.asyncIterator]();
  const rows = placedAfter(database, backendId, after ?? "", call)[Symbol.asyncIterator]();
  try {
    let blob = await nextBlob(blobs);
    let row = await next(rows);
    while (blob !== undefined || row !== undefined) {
      if (row !== undefined && (blob === undefined || row.physicalKey < blob.key)) {
        yield { key: row.physicalKey, listed: undefined, row };
        row = await next(rows);
      } else if (blob !== undefined && (row === undefined || blob.key < row.physicalKey)) {
        const late = await findPlaced(database, backendId, blob.key);
        yield { key: blob.key, listed: blob, row: late };
        blob = await nextBlob(blobs);
      } else if (blob !== undefined && row !== undefined) {
        yield { key: row.physicalKey, listed: blob, row };
        blob = await nextBlob(blobs);
        row = await next(rows);
      }
    }
  } finally {
    await blobs.return?.(undefined);
    await rows.return?.(undefined);
  }
}

/** All else at a backend; the row of the location that it is a part of, where there is one. */
export async function* walkForeign(
  database: Database,
  backendId: number,
  driver: ObjectDriver,
  call: Call,
): AsyncGenerator<{ readonly foreign: ForeignBlob; readonly row: PlacedRow | undefined }> {
  for await (const page of driver.listForeign(call)) {
    for (const foreign of page) {
      const { partOf } = foreign;
      yield { foreign, row: partOf === undefined ? undefined : await findPlaced(database, backendId, partOf) };
    }
  }
}

async function nextBlob(blobs: AsyncIterator<StoredBlob>): Promise<StoredBlob | undefined> {
  for (;;) {
    const blob = await next(blobs);
    if (blob === undefined || !isMarkerKey(blob.key)) return blob;
  }
}

async function next<T>(items: AsyncIterator<T>): Promise<T | undefined> {
  const { done, value } = await items.next();
  return done === true ? undefined : value;
}
