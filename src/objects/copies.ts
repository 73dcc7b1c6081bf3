import { randomUUID } from "node:crypto";
import type { Compression } from "../config/index.ts";
import type { Database, Transaction } from "../db/index.ts";
import { isCode, StowageError } from "../errors/index.ts";
import type { Call } from "../runtime/index.ts";
import type { BackendSection, Backends } from "./backends.ts";
import type { ObjectDriver } from "./driver.ts";
import { formatHeader } from "./envelope.ts";
import { readStoredThrough, readThrough } from "./location-reader.ts";
import { createPhysicalKey } from "./physical-key.ts";
import { ReadAhead } from "./read-ahead.ts";
import { deleteAtOnce } from "./reaper.ts";
import {
  clearRedirectsFrom,
  clearRedirectsOf,
  countWriters,
  findLocated,
  type IntendedCopy,
  insertCopies,
  type LocatedObject,
  type Redirect,
  recordCopies,
  releaseCopies,
  releaseCopiesOf,
  setRedirects,
  switchPointers,
} from "./rows/copies.ts";
import type { Located } from "./rows/locations.ts";
import { notDeleted } from "./rows/reaper.ts";
import { shortBytesMax } from "./short-bytes.ts";
import { payloadOf, verifiedBytes, verifiedContent, WrongBytes } from "./verified-body.ts";
import { rewrittenBody, rewrittenBytes, type Written, writtenBody, writtenBytes } from "./written-body.ts";

/**
 * Copies of objects at other backends, for migrations: the same version, another location.
 *
 * | step | durable | a crash leaves | then |
 * |---|---|---|---|
 * | intend | the copy's location, held by the migration | perhaps bytes, held | a new copy is intended, this one is released to the reaper |
 * | copy | its bytes | bytes that nobody knows to be whole | the same |
 * | record | what was written of it | bytes not yet proven | read back |
 * | switch | the pointer, with the source retired or kept, in one transaction | – | – |
 */
export class Copies {
  readonly #database: Database;
  readonly #backends: Backends;

  readonly #lateSeconds: number;

  constructor(database: Database, backends: Backends, lateSeconds: number) {
    this.#database = database;
    this.#backends = backends;
    this.#lateSeconds = lateSeconds;
  }

  /** The id of the backend that a section names, as it is after the place was looked at: it may be known under another address. */
  async backendOf(section: BackendSection, call: Call): Promise<number> {
    const backend = await this.#backends.find(section);
    await backend.forWriting(call);
    return backend.id;
  }

  /** The id as far as it is known; the place is not looked at. */
  async knownAs(section: BackendSection): Promise<number> {
    return (await this.#backends.find(section)).id;
  }

  /** The same, before anything is to be written there: nobody's place stays nobody's. */
  async lookUp(section: BackendSection, call: Call): Promise<number> {
    return await (await this.#backends.find(section)).lookUp(call);
  }

  /** Makes sure that the places can be read and written. */
  async open(ids: readonly number[], call: Call): Promise<void> {
    for (const id of ids) await (await this.#backends.of(id, call)).forWriting(call);
  }

  intend(
    tx: Transaction,
    migrationId: number,
    wanted: readonly { readonly sourceLocationId: number; readonly backendId: number }[],
  ): Promise<readonly IntendedCopy[]> {
    const copies = wanted.map((each) => ({ ...each, physicalKey: createPhysicalKey() }));
    return insertCopies(tx, migrationId, randomUUID(), copies);
  }

  /** What is recorded of proven locations; those that have gone are left out. */
  located(ids: readonly number[]): Promise<ReadonlyMap<number, LocatedObject>> {
    return findLocated(this.#database, ids);
  }

  /** For copying or verifying these, in this order. */
  readAhead(locations: readonly Located[]): ReadAhead {
    return new ReadAhead(locations);
  }

  /**
   * Writes a copy: the payload as it is where the destination would encode it in the same way, else anew.
   * @throws StowageError `OBJECT_DIGEST_MISMATCH`, `BACKEND_KEY_MISSING` when the source is damaged or gone, else what the backends say
   */
  async copy(source: LocatedObject, copy: IntendedCopy, ahead: ReadAhead, call: Call): Promise<Written> {
    const from = await (await this.#backends.of(source.backendId, call)).driver(call);
    const backend = await this.#backends.of(copy.backendId, call);
    const to = await backend.forWriting(call);
    const { account, bucket, key } = source.ref;
    const installation = this.#backends.installation.id;
    const header = (codec: Written["codec"], location = copy.locationId) =>
      formatHeader({ installation, location, account, bucket, key, codec });
    const compression = this.#backends.compressionOf(backend);
    const isSame = wouldStoreAs(source, compression);
    const openStored = (under: Call) => from.get(source.physicalKey, undefined, under);
    const openContent = async (under: Call) => verifiedContent(await openStored(under), source, async (wrong) => wrong);
    const rewritten = async () => {
      if (source.contentBytes <= shortBytesMax) {
        const stored = await ahead.read(from, source, call);
        return isSame
          ? rewrittenBytes(stored, source, header(source.codec))
          : await writtenBytes(await verifiedBytes(stored, source), false, compression, header);
      }
      return isSame
        ? rewrittenBody(openStored, source, header(source.codec), header(source.codec, source.locationId).length)
        : writtenBody({ open: openContent, sizeBytes: source.contentBytes }, compression, header);
    };
    try {
      const { source: body, written } = await rewritten();
      const stored = await to.put(copy.physicalKey, body, call);
      const result = written();
      if (result.contentDigest !== source.contentDigest || stored.sizeBytes !== result.storedBytes) {
        throw new StowageError("BACKEND_FAILED", {
          ...about(to, "put", copy.physicalKey),
          reason: `stored ${stored.sizeBytes} bytes instead of ${result.storedBytes}`,
        });
      }
      if (stored.digest !== undefined && stored.digest !== result.storedDigest) {
        throw new StowageError("BACKEND_FAILED", {
          ...about(to, "put", copy.physicalKey),
          reason: `stored ${stored.digest} instead of ${result.storedDigest}`,
        });
      }
      return result;
    } catch (error) {
      const wrong = wrongBytesIn(error);
      if (wrong === undefined) throw error;
      throw new StowageError(
        "OBJECT_DIGEST_MISMATCH",
        { bucket, key, expected: source.contentDigest, actual: wrong.actual },
        { cause: error, hint: "run: stowage objectstorage scrub --repair" },
      );
    }
  }

  /** Reads a copy back and compares it with what was recorded, or its stored bytes only where `depth` is `checksum`. */
  async verify(copy: Located, depth: "readback" | "checksum", ahead: ReadAhead, call: Call): Promise<void> {
    const driver = await (await this.#backends.of(copy.backendId, call)).driver(call);
    const readLong = depth === "readback" ? readThrough : readStoredThrough;
    const wrong =
      copy.contentBytes <= shortBytesMax
        ? await compareShort(await ahead.read(driver, copy, call), copy, depth)
        : await readLong(driver, copy, call);
    if (wrong === undefined) return;
    const reason = `read back ${wrong.actual}`;
    throw new StowageError("BACKEND_FAILED", { ...about(driver, "get", copy.physicalKey), reason }, { cause: wrong });
  }

  record(
    tx: Transaction,
    copies: readonly { readonly locationId: number; readonly written: Written }[],
  ): Promise<void> {
    return recordCopies(tx, copies);
  }

  switch(
    tx: Transaction,
    pairs: readonly { readonly sourceLocationId: number; readonly locationId: number }[],
    keepsSources: boolean,
  ): Promise<ReadonlySet<number>> {
    return switchPointers(tx, pairs, keepsSources);
  }

  /** All that a migration holds. */
  releaseAll(tx: Transaction, migrationId: number): Promise<void> {
    return releaseCopiesOf(tx, migrationId);
  }

  release(tx: Transaction, locationIds: readonly number[]): Promise<void> {
    return releaseCopies(tx, locationIds);
  }

  /** Which of these have gone from their backends, whoever deleted them. */
  async gone(locationIds: readonly number[]): Promise<readonly number[]> {
    const left = new Set(await notDeleted(this.#database, locationIds));
    return locationIds.filter((id) => !left.has(id));
  }

  /** From now on, whoever would write to a backend writes to another. */
  setRedirects(tx: Transaction, migrationId: number, redirects: readonly Redirect[]): Promise<void> {
    return setRedirects(tx, migrationId, redirects);
  }

  clearRedirectsFrom(tx: Transaction, backendIds: readonly number[]): Promise<void> {
    return clearRedirectsFrom(tx, backendIds);
  }

  clearRedirectsOf(tx: Transaction, migrationId: number): Promise<void> {
    return clearRedirectsOf(tx, migrationId);
  }

  /** Writers at work at a backend just now. */
  countWriters(backendId: number): Promise<number> {
    return countWriters(this.#database, backendId);
  }

  /** Deletes what was retired, without a grace period: the caller knows that nobody reads. Returns those that are gone, and why others are not. */
  async deleteAtOnce(
    locationIds: readonly number[],
    call: Call,
  ): Promise<{ readonly gone: readonly number[]; readonly failures: ReadonlyMap<number, StowageError> }> {
    return await deleteAtOnce(this.#database, this.#backends, locationIds, this.#lateSeconds, call);
  }
}

async function compareShort(
  stored: Buffer,
  copy: Located,
  depth: "readback" | "checksum",
): Promise<WrongBytes | undefined> {
  try {
    // Content that lies there as it is was digested when its envelope was made, and is what that envelope's digest was made of.
    if (depth === "checksum" || copy.codec === "none") payloadOf(stored, copy);
    else await verifiedBytes(stored, copy);
    return undefined;
  } catch (error) {
    if (error instanceof WrongBytes) return error;
    throw error;
  }
}

/** Whether the destination would choose the codec that the bytes have. */
function wouldStoreAs({ codec, contentBytes }: Located, compression: Compression): boolean {
  const chosen =
    compression.enabled && contentBytes > compression.minSizeKbytes * 1024 ? compression.algorithm : "none";
  return codec === chosen;
}

/** Wrong bytes of the source, which a driver may have wrapped as the failure of the body that it was given. */
function wrongBytesIn(error: unknown): WrongBytes | undefined {
  if (error instanceof WrongBytes) return error;
  if (isCode(error, "BACKEND_FAILED") && error.cause instanceof WrongBytes) return error.cause;
  return undefined;
}

function about(driver: ObjectDriver, operation: string, key: string) {
  return { driver: driver.name, operation, key };
}
