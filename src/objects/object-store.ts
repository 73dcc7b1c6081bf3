import { Readable } from "node:stream";
import type { Database, Transaction } from "../db/index.ts";
import { isCode, StowageError } from "../errors/index.ts";
import { announce, type Call, collectEarly } from "../runtime/index.ts";
import { type BackendSections, Backends, describeBackend } from "./backends.ts";
import { Copies } from "./copies.ts";
import type { ObjectDriver } from "./driver.ts";
import { Gathering, gatheredMax } from "./gathering.ts";
import { leaseLost } from "./leases.ts";
import { readShort, readThrough } from "./location-reader.ts";
import { reap } from "./reaper.ts";
import { objectsByBackend, readBackends } from "./rows/backends.ts";
import { type CompactionReport, compact } from "./rows/compact.ts";
import { readRedirects } from "./rows/copies.ts";
import {
  findCopies,
  findVersions,
  type Located,
  makeLive,
  publishLocation,
  recordDamage,
  removePointer,
  switchPointer,
} from "./rows/locations.ts";
import { type Reclaimable, reclaimable } from "./rows/reaper.ts";
import type { ScrubOptions, ScrubReport } from "./scrub.ts";
import { shortBytesMax } from "./short-bytes.ts";
import { Staging } from "./staging.ts";
import {
  type Elsewhere,
  isSameObject,
  nameOf,
  type ObjectBody,
  type ObjectRef,
  type ObjectStore,
  type ObjectVersion,
  type ReapReport,
  type RepairOptions,
  type StagedObject,
  type StoreMaintenance,
} from "./store.ts";
import { readUsage, type UsageReport } from "./usage.ts";
import { verifiedContent, WrongBytes } from "./verified-body.ts";

export interface ObjectStoreOptions {
  readonly database: Database;
  readonly sections: BackendSections;
  /** Around each driver that is opened. */
  readonly guard?: (driver: ObjectDriver) => ObjectDriver;
  /** How long the bytes of a replaced or deleted object stay for those who are reading them. Default 900. */
  readonly retireGraceSeconds?: number;
  /** How long a writer may be silent before it counts as dead. Default 300. */
  readonly leaseSeconds?: number;
  /**
   * How long after a writer's right to a location ended its bytes can still arrive: the longest that a process stands still before it sends a
   * request, and then the longest life of a request to the backend. Default 1,800: 900 each.
   */
  readonly lateSeconds?: number;
  /** Nobody else has the store open, and nobody will for as long as it lives: no lease and no grace period is waited for. */
  readonly isAlone?: boolean;
}

/** Opens the store and registers its backends; connects to one when it is needed. */
export async function openObjectStore(
  options: ObjectStoreOptions,
): Promise<ObjectStore & StoreMaintenance & AsyncDisposable> {
  collectEarly();
  const guard = options.guard ?? ((driver) => driver);
  return new LocatedObjectStore(options, await Backends.open(options.database, options.sections, guard));
}

class LocatedObjectStore implements ObjectStore, StoreMaintenance, AsyncDisposable {
  readonly #database: Database;
  readonly #retireGraceSeconds: number;
  readonly #lateSeconds: number;
  readonly #isAlone: boolean;
  readonly #backends: Backends;
  readonly #staging: Staging;
  readonly #versions: Gathering<ObjectRef, (ObjectVersion & Located) | undefined>;
  readonly copies: Copies;

  constructor(options: ObjectStoreOptions, backends: Backends) {
    this.#database = options.database;
    this.#backends = backends;
    this.#retireGraceSeconds = options.retireGraceSeconds ?? 900;
    this.#lateSeconds = options.lateSeconds ?? 1800;
    this.#isAlone = options.isAlone ?? false;
    this.#staging = new Staging(options.database, backends, options.leaseSeconds ?? 300);
    this.#versions = new Gathering(gatheredMax, (refs) => findVersions(this.#database.sql, refs));
    this.copies = new Copies(options.database, backends, this.#lateSeconds);
  }

  get reachable(): readonly number[] {
    return this.#backends.all.filter(({ name }) => name !== "db").map(({ id }) => id);
  }

  async stage(ref: ObjectRef, body: ObjectBody, call: Call): Promise<StagedObject> {
    return await this.#staging.stage(ref, body, call);
  }

  async publish(tx: Transaction, staged: readonly StagedObject[]): Promise<readonly ObjectVersion[]> {
    const versions = new Map<StagedObject, ObjectVersion>();
    // Always in one order: publishers of the same objects then wait for each other instead of for ever.
    for (const each of staged.toSorted(byRef)) {
      const { ref, locationId, contentDigest, contentBytes, storedBytes } = each;
      const version = await publishLocation(tx, ref, locationId);
      if (version === undefined) throw leaseLost(ref);
      versions.set(each, { ref, version, locationId, contentDigest, contentBytes, storedBytes });
    }
    announce("objects published", { count: staged.length });
    return staged.map((each) => versions.get(each) as ObjectVersion);
  }

  async get(ref: ObjectRef, call: Call): Promise<{ readonly version: ObjectVersion; readonly body: Readable }> {
    const version = await this.#locate(ref);
    // Of a large one, what was handed on can't be taken back: once it is known to be damaged, its copies come first.
    const isDamaged = version.damage !== undefined && version.contentBytes > shortBytesMax;
    const spared = isDamaged ? await this.#openCopy(version, version.damage, call) : undefined;
    if (spared !== undefined) return { version, body: spared };
    const failure = await this.#tryOpen(version, version, call);
    if (failure instanceof Readable) return { version, body: failure };
    // Bytes that are gone have moved, if the pointer says so.
    const again = await this.#locate(ref);
    if (again.locationId !== version.locationId) return { version: again, body: await this.#open(again, again, call) };
    const body = await this.#openCopy(version, failure, call);
    if (body === undefined) throw failure;
    return { version, body };
  }

  async #openCopy(version: ObjectVersion, err: unknown, call: Call): Promise<Readable | undefined> {
    for (const copy of await findCopies(this.#database, version)) {
      const body = await this.#tryOpen(version, copy, call);
      if (!(body instanceof Readable)) continue;
      call.log.warn({ err, locationId: version.locationId }, "damaged object read from another copy");
      announce("objects read from a copy", { locationId: copy.locationId });
      return body;
    }
    return undefined;
  }

  async find(ref: ObjectRef): Promise<ObjectVersion | undefined> {
    return await this.#versions.ask(ref);
  }

  async retire(tx: Transaction, ref: ObjectRef): Promise<boolean> {
    const isRetired = await removePointer(tx, ref);
    if (isRetired) announce("objects retired", { key: ref.key });
    return isRetired;
  }

  async relocate(tx: Transaction, version: ObjectVersion, copy: StagedObject): Promise<boolean> {
    if (copy.contentDigest !== version.contentDigest) throw new TypeError("a copy has another content");
    // The pointer first: a copy that is live without one would be nobody's, and the reaper would never take it.
    if (!(await switchPointer(tx, version.ref, version.locationId, copy.locationId))) return false;
    if (!(await makeLive(tx, copy.locationId))) throw leaseLost(copy.ref);
    return true;
  }

  async reap(limit: number, call: Call): Promise<ReapReport> {
    await this.#backends.recognize(call);
    const options = {
      graceSeconds: this.#retireGraceSeconds,
      lateSeconds: this.#lateSeconds,
      isAlone: this.#isAlone,
    };
    return await reap(this.#database, this.#backends.all, options, limit, call);
  }

  async usage(look: boolean, call: Call): Promise<UsageReport> {
    if (look) await this.#backends.recognize(call);
    return await readUsage(this.#database, this.#backends.all, look, call);
  }

  async reclaimable(call: Call): Promise<readonly (Reclaimable & { readonly place: string })[]> {
    await this.#backends.recognize(call);
    const places = await this.#places();
    const options = { graceSeconds: this.#retireGraceSeconds, lateSeconds: this.#lateSeconds };
    const found = await reclaimable(this.#database, options);
    return found.map((each) => ({ ...each, place: places.get(each.backendId) ?? String(each.backendId) }));
  }

  async scrub(
    { repair, ...options }: Omit<ScrubOptions, "repair"> & { readonly repair?: RepairOptions },
    call: Call,
  ): Promise<ScrubReport> {
    const mend =
      repair === undefined
        ? {}
        : {
            repair: async (version: ObjectVersion & Located, under: Call) => {
              if (await this.#restore(version, under)) return "repaired" as const;
              return (await repair.onLost(version.ref, under)) ? ("givenUp" as const) : undefined;
            },
          };
    // Loaded when it is needed: what reads headers takes longer to load than a short command to run.
    const { scrub } = await import("./scrub.ts");
    await this.#backends.recognize(call);
    return await scrub(this.#database, this.#backends.all, { ...options, ...mend }, call);
  }

  async compact(call: Call): Promise<CompactionReport> {
    return await compact(this.#database, call);
  }

  async claim(call: Call): Promise<readonly string[]> {
    return (await this.#backends.claim(call)).map(({ description }) => description);
  }

  async elsewhere(call: Call): Promise<readonly Elsewhere[]> {
    await this.#backends.recognize(call);
    const targets = [this.#backends.workingSet.id, this.#backends.archive.id];
    const configured = new Set(this.#backends.all.map(({ id }) => id));
    const others = [...(await this.#places())].filter(([id]) => !targets.includes(id));
    // To count all objects takes long where there are many; usually there are none at other places.
    const counts = await objectsByBackend(
      this.#database,
      others.map(([id]) => id),
    );
    return others.flatMap(([id, place]) => {
      const objects = counts.get(id) ?? 0;
      return objects === 0 ? [] : [{ backendId: id, place, isConfigured: configured.has(id), objects }];
    });
  }

  async redirected(): Promise<readonly { readonly place: string; readonly goesTo: string }[]> {
    const redirects = await readRedirects(this.#database, [this.#backends.workingSet.id, this.#backends.archive.id]);
    if (redirects.length === 0) return [];
    const places = await this.#places();
    const pairs = redirects.map(({ backendId, toBackendId }) => [places.get(backendId), places.get(toBackendId)]);
    const distinct = new Map(pairs.map(([place = "", goesTo = ""]) => [`${place} ${goesTo}`, { place, goesTo }]));
    return [...distinct.values()];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#staging[Symbol.dispose]();
    await this.#backends[Symbol.asyncDispose]();
  }

  async #places(): Promise<ReadonlyMap<number, string>> {
    return new Map((await readBackends(this.#database)).map((row) => [row.id, describeBackend(row)]));
  }

  /** Copies the content from another place where it is right, and lets the object lie there. */
  async #restore(version: ObjectVersion & Located, call: Call): Promise<boolean> {
    for (const copy of await findCopies(this.#database, version)) {
      const open = (under: Call) => this.#open(version, copy, under);
      try {
        const staged = await this.stage(version.ref, { open }, call);
        if (await this.#database.transaction((tx) => this.relocate(tx, version, staged), call)) return true;
      } catch (error) {
        if (!isCode(error, "BACKEND_KEY_MISSING", "OBJECT_DIGEST_MISMATCH")) throw error;
      }
    }
    return false;
  }

  async #locate(ref: ObjectRef): Promise<ObjectVersion & Located> {
    const version = await this.#versions.ask(ref);
    if (!version) throw new StowageError("OBJECT_NOT_FOUND", { bucket: ref.bucket, key: ref.key });
    return version;
  }

  /** The content at one location, or why it can't be had there: its bytes are gone or wrong. */
  async #tryOpen(version: ObjectVersion, at: Located, call: Call): Promise<Readable | StowageError> {
    try {
      return await this.#open(version, at, call);
    } catch (error) {
      if (isCode(error, "BACKEND_KEY_MISSING", "OBJECT_DIGEST_MISMATCH")) return error;
      throw error;
    }
  }

  async #open(version: ObjectVersion, at: Located, call: Call): Promise<Readable> {
    if (!isSameObject(at.writtenFor, version.ref)) {
      throw await this.#damaged(version, at, new WrongBytes(`those of ${nameOf(at.writtenFor)}`), call);
    }
    const backend = await this.#backends.of(at.backendId, call);
    const driver = await backend.driver(call);
    if (at.contentBytes > shortBytesMax) {
      // What was handed on can't be taken back, but whether it was read wrong or is damaged can be told.
      return verifiedContent(await driver.get(at.physicalKey, undefined, call), at, async (wrong) => {
        const again = await readThrough(driver, at, call);
        if (again !== undefined) return await this.#damaged(version, at, again, call);
        const details = { driver: driver.name, operation: "get", key: at.physicalKey };
        const reason = "wrong bytes were read, the right ones when they were read again";
        return new StowageError("BACKEND_FAILED", { ...details, reason }, { cause: wrong, hint: "run it again" });
      });
    }
    const content = async () => {
      const bytes = await readShort(driver, at, call);
      return Readable.from(bytes.length === 0 ? [] : [bytes], { objectMode: false });
    };
    try {
      return await content();
    } catch (error) {
      if (!(error instanceof WrongBytes)) throw error;
    }
    try {
      return await content();
    } catch (error) {
      if (!(error instanceof WrongBytes)) throw error;
      throw await this.#damaged(version, at, error, call);
    }
  }

  /** Wrong twice is damaged: recorded, so that a scrub repairs it. */
  async #damaged(version: ObjectVersion, at: Located, wrong: WrongBytes, call: Call): Promise<StowageError> {
    const { bucket, key } = version.ref;
    call.log.error({ locationId: at.locationId, bucket, key, actual: wrong.actual }, "object damaged");
    announce("objects damaged", { locationId: at.locationId });
    await recordDamage(this.#database, at.locationId, wrong.actual);
    const details = { bucket, key, expected: at.contentDigest, actual: wrong.actual };
    return new StowageError("OBJECT_DIGEST_MISMATCH", details, { hint: "run: stowage objectstorage scrub --repair" });
  }
}

function byRef({ ref: one }: StagedObject, { ref: other }: StagedObject): number {
  const names = [one.account, one.bucket, one.key];
  const otherNames = [other.account, other.bucket, other.key];
  const at = names.findIndex((name, index) => name !== otherNames[index]);
  return at < 0 ? 0 : (names[at] as string) < (otherNames[at] as string) ? -1 : 1;
}
