import { randomUUID } from "node:crypto";
import { Readable } from "node:stream";
// biome-ignore lint/plugin: reads verified bodies of at most `checkedFirstBytesMax`, which fail beyond their recorded size
import { buffer } from "node:stream/consumers";
import type { Database, Transaction } from "../db/index.ts";
import { isCode, StowageError } from "../errors/index.ts";
import { announce, type Call, throwIfAborted } from "../runtime/index.ts";
import type { BodySource, ObjectDriver, PhysicalKey } from "./driver.ts";
import { createPhysicalKey } from "./physical-key.ts";
import {
  condemn,
  condemned,
  findVersion,
  insertPending,
  makeLive,
  markDeletedOnce,
  movePointer,
  postpone,
  recordProof,
  registerBackend,
  removeLocation,
  removePointer,
  renewLease,
} from "./rows.ts";
import type { ObjectRef, ObjectStore, ObjectVersion, ReapReport, StagedObject } from "./store.ts";
import { Digester, digested, verified } from "./verified-body.ts";

export interface ObjectStoreOptions {
  readonly database: Database;
  /** Where new objects go. The store closes it. */
  readonly driver: ObjectDriver;
  /** The driver's settings without secrets: what tells one backend from another. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** How long the bytes of a replaced or deleted object stay for those who are reading them. Default 900. */
  readonly retireGraceSeconds?: number;
  /** How long a writer may be silent before it counts as dead. Default 300. */
  readonly leaseSeconds?: number;
  /** The longest life of a request to the backend: what a dead writer sent can arrive so late. Default 900. */
  readonly lateSeconds?: number;
}

/** Documents up to this size are checked before their first byte is handed on. */
const checkedFirstBytesMax = 1024 * 1024;

/** Opens the store and registers its backend. */
export async function openObjectStore(options: ObjectStoreOptions): Promise<ObjectStore & AsyncDisposable> {
  const backendId = await registerBackend(options.database, options.driver.name, options.settings ?? {});
  return new DriverObjectStore(options, backendId);
}

type Located = ObjectVersion & { readonly physicalKey: PhysicalKey; readonly backendId: number };

class DriverObjectStore implements ObjectStore, AsyncDisposable {
  readonly #database: Database;
  readonly #driver: ObjectDriver;
  readonly #backendId: number;
  readonly #retireGraceSeconds: number;
  readonly #leaseSeconds: number;
  readonly #lateSeconds: number;

  constructor(options: ObjectStoreOptions, backendId: number) {
    this.#database = options.database;
    this.#driver = options.driver;
    this.#backendId = backendId;
    this.#retireGraceSeconds = options.retireGraceSeconds ?? 900;
    this.#leaseSeconds = options.leaseSeconds ?? 300;
    this.#lateSeconds = options.lateSeconds ?? 900;
  }

  async stage(ref: ObjectRef, body: BodySource, call: Call): Promise<StagedObject> {
    const physicalKey = createPhysicalKey();
    const location = { backendId: this.#backendId, physicalKey, ref, writer: randomUUID(), codec: "none" };
    const locationId = await insertPending(this.#database, location, this.#leaseSeconds);
    announce("objects intended", { locationId });
    const lease = this.#keepLease(ref, locationId, call);
    try {
      const { contentDigest, contentBytes } = await this.#put(physicalKey, body, lease.call);
      announce("objects stored", { locationId });
      const proof = { contentDigest, contentBytes, storedDigest: contentDigest, storedBytes: contentBytes };
      if (!(await recordProof(this.#database, locationId, proof, this.#leaseSeconds))) throw leaseLost(ref);
      announce("objects proven", { locationId });
      return { ref, locationId, contentDigest, contentBytes, storedBytes: contentBytes };
    } finally {
      lease.stop();
    }
  }

  async publish(tx: Transaction, staged: readonly StagedObject[]): Promise<readonly ObjectVersion[]> {
    const versions = new Map<StagedObject, ObjectVersion>();
    // Always in one order: publishers of the same objects then wait for each other instead of for ever.
    for (const each of staged.toSorted(byRef)) {
      const { ref, locationId, contentDigest, contentBytes, storedBytes } = each;
      if (!(await makeLive(tx, locationId))) throw leaseLost(ref);
      const version = await movePointer(tx, ref, locationId);
      versions.set(each, { ref, version, locationId, contentDigest, contentBytes, storedBytes });
    }
    announce("objects published", { count: staged.length });
    return staged.map((each) => versions.get(each) as ObjectVersion);
  }

  async get(ref: ObjectRef, call: Call): Promise<{ readonly version: ObjectVersion; readonly body: Readable }> {
    let version = await this.#locate(ref);
    for (let attempt = 1; ; attempt++) {
      try {
        return { version, body: await this.#open(version, call) };
      } catch (error) {
        // Bytes that are gone have moved, if the pointer says so; bytes that are wrong may have been read wrong.
        const mayHelp = isCode(error, "BACKEND_KEY_MISSING", "OBJECT_DIGEST_MISMATCH") && attempt === 1;
        if (!mayHelp) throw error;
        version = await this.#locate(ref);
      }
    }
  }

  async find(ref: ObjectRef): Promise<ObjectVersion | undefined> {
    return findVersion(this.#database.sql, ref);
  }

  async retire(tx: Transaction, ref: ObjectRef): Promise<boolean> {
    const isRetired = await removePointer(tx, ref);
    if (isRetired) announce("objects retired", { key: ref.key });
    return isRetired;
  }

  async reap(limit: number, call: Call): Promise<ReapReport> {
    const decided = await condemn(this.#database, this.#backendId, this.#retireGraceSeconds, limit);
    if (decided > 0) announce("objects deleting", { count: decided });
    const locations = await condemned(this.#database, this.#backendId, this.#lateSeconds, limit);
    let blobsDeleted = 0;
    let bytesDeleted = 0;
    const failures: unknown[] = [];
    for (const { id, physicalKey, storedBytes, isProven, isLate } of locations) {
      throwIfAborted(call);
      try {
        await this.#driver.delete(physicalKey, call);
      } catch (error) {
        // One that can't be deleted must not keep the others, in this pass or the next.
        failures.push(error);
        await postpone(this.#database, id);
        continue;
      }
      announce("objects deleted", { locationId: id });
      if (isProven || isLate) await removeLocation(this.#database, id);
      else await markDeletedOnce(this.#database, id);
      announce("objects forgotten", { locationId: id });
      blobsDeleted++;
      bytesDeleted += storedBytes;
    }
    if (failures.length > 0) throw failures[0];
    return { blobsDeleted, bytesDeleted, isMoreLeft: decided === limit || locations.length === limit };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#driver[Symbol.asyncDispose]();
  }

  async #locate(ref: ObjectRef): Promise<Located> {
    const version = await findVersion(this.#database.sql, ref);
    if (!version) throw new StowageError("OBJECT_NOT_FOUND", { bucket: ref.bucket, key: ref.key });
    return version;
  }

  async #open(version: Located, call: Call): Promise<Readable> {
    const { physicalKey, backendId, contentBytes, contentDigest } = version;
    if (backendId !== this.#backendId) {
      const reason = `the object lies at backend ${backendId}, which is not configured`;
      throw new StowageError("BACKEND_FAILED", {
        driver: this.#driver.name,
        operation: "get",
        key: physicalKey,
        reason,
      });
    }
    const body = await this.#driver.get(physicalKey, undefined, call);
    if (contentBytes <= checkedFirstBytesMax) return Readable.from([await buffer(verified(body, version))]);
    // What was handed on can't be taken back, but whether it was read wrong or is damaged can be told.
    return verified(body, version, async (mismatch) => {
      if ((await this.#readBack(physicalKey, call)) !== contentDigest) return mismatch;
      const reason = "wrong bytes were read, the right ones when they were read again";
      const details = { driver: this.#driver.name, operation: "get", key: physicalKey, reason };
      return new StowageError("BACKEND_FAILED", details, { cause: mismatch, hint: "run the command again" });
    });
  }

  /** Writes the body and proves what was written: by what the backend says of it, or by reading it back. */
  async #put(key: PhysicalKey, body: BodySource, call: Call): Promise<{ contentDigest: string; contentBytes: number }> {
    let digester = new Digester();
    const counted: BodySource = {
      ...(body.sizeBytes === undefined ? {} : { sizeBytes: body.sizeBytes }),
      open: async (under) => {
        digester = new Digester();
        return digested(await body.open(under), digester);
      },
    };
    const stored = await this.#driver.put(key, counted, call);
    const contentBytes = digester.bytes;
    const contentDigest = digester.digest();
    const proven = stored.digest ?? (await this.#readBack(key, call));
    if (proven !== contentDigest || stored.sizeBytes !== contentBytes) {
      throw new StowageError("BACKEND_FAILED", {
        driver: this.#driver.name,
        operation: "put",
        key,
        reason: `stored ${proven} (${stored.sizeBytes} bytes) instead of ${contentDigest} (${contentBytes} bytes)`,
      });
    }
    return { contentDigest, contentBytes };
  }

  async #readBack(key: PhysicalKey, call: Call): Promise<string> {
    const digester = new Digester();
    for await (const chunk of await this.#driver.get(key, undefined, call)) digester.update(chunk as Buffer);
    return digester.digest();
  }

  /** Renews the lease while a long put runs; aborts it when the lease is lost. */
  #keepLease(ref: ObjectRef, locationId: number, call: Call): { readonly call: Call; stop(): void } {
    const lost = new AbortController();
    const timer = setInterval(
      () => {
        renewLease(this.#database, locationId, this.#leaseSeconds).then(
          (isHeld) => isHeld || lost.abort(leaseLost(ref)),
          // The next renewal, or the proof, tells whether it is really lost.
          (error: unknown) => call.log.warn({ err: error, locationId }, "lease not renewed"),
        );
      },
      (this.#leaseSeconds * 1000) / 3,
    );
    timer.unref();
    const signal = AbortSignal.any([call.signal, lost.signal]);
    return { call: { ...call, signal }, stop: () => clearInterval(timer) };
  }
}

function byRef({ ref: one }: StagedObject, { ref: other }: StagedObject): number {
  const names = [one.account, one.bucket, one.key];
  const otherNames = [other.account, other.bucket, other.key];
  const at = names.findIndex((name, index) => name !== otherNames[index]);
  return at < 0 ? 0 : (names[at] as string) < (otherNames[at] as string) ? -1 : 1;
}

function leaseLost(ref: ObjectRef): StowageError {
  return new StowageError(
    "OBJECT_LEASE_LOST",
    { bucket: ref.bucket, key: ref.key },
    { hint: "the write took longer than its lease; run the command again" },
  );
}
