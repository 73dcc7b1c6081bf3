import { createHash } from "node:crypto";
import type { Database } from "../db/index.ts";
import { isCode, messageOf, StowageError, toStowageError } from "../errors/index.ts";
import {
  announce,
  type Call,
  type Clock,
  eachAtOnce,
  type ProgressTask,
  RateLimit,
  throwIfAborted,
} from "../runtime/index.ts";
import type { Backend } from "./backends.ts";
import type { ForeignBlob, ObjectDriver, PhysicalKey } from "./driver.ts";
import { readHeader } from "./envelope-reader.ts";
import { readThrough } from "./location-reader.ts";
import { findVersions, type Located, recordDamage } from "./rows/locations.ts";
import {
  beginScrub,
  countDamaged,
  countUnreadable,
  damagedUpTo,
  endScrub,
  type FindingKind,
  findUnfinishedScrub,
  readFindings,
  recordChecked,
  recordFinding,
  recordScrubProgress,
  type ScrubFinding,
  type ScrubRow,
  scrubTotal,
} from "./rows/scrubs.ts";
import { findPlaced, findPointers, type PlacedRow } from "./rows/walk.ts";
import { isSameObject, nameOf, type ObjectRef, type ObjectVersion } from "./store.ts";
import { type Placed, walk, walkForeign } from "./walk.ts";

export interface ScrubOptions {
  /** Of the objects, from 0 to 1: what is only looked for in the listing, and what is read. */
  readonly share: number;
  /** No more than this many bytes per second are read. */
  readonly bytesPerSecondMax?: number;
  /** Begin anew instead of going on with a scrub that was interrupted. */
  readonly restart: boolean;
  /** Chooses the sample. */
  readonly seed: number;
  /** Tries to mend a damaged or missing live object: its bytes are right again, or will be made anew; else nothing was done. */
  readonly repair?: (version: ObjectVersion & Located, call: Call) => Promise<"repaired" | "givenUp" | undefined>;
  readonly clock: Clock;
  /** Told what is about to be read. */
  readonly begin: (plan: ScrubPlan) => ProgressTask;
}

export interface ScrubPlan {
  /** Of the objects, from 0 to 1: that of the interrupted scrub, when one goes on. */
  readonly share: number;
  /** What is left to be read, about. */
  readonly objectsLeft: number;
  readonly bytesLeft: number;
  /** Of the interrupted scrub that goes on: when it began and what it has read. */
  readonly resumed: { readonly startedAt: Date; readonly objects: number; readonly bytes: number } | undefined;
}

export interface ScrubReport {
  readonly id: number;
  readonly startedAt: Date;
  readonly isResumed: boolean;
  readonly objects: number;
  readonly bytes: number;
  /** Mended from a copy. */
  readonly repaired: number;
  /** Lost, and seen to that they are made anew. */
  readonly givenUp: number;
  /** Of these, those that are not there any more; the others stay damaged until they are made anew. */
  readonly forgotten: number;
  /** Found wrong, and replaced or deleted since: nobody needs them. */
  readonly notNeeded: number;
  /** Live objects that are damaged still, whoever noticed. */
  readonly damaged: number;
  /** Live objects that this scrub could not read, so that nothing is known of their bytes. */
  readonly unreadable: number;
  /** Of each kind, by its name. */
  readonly counts: Readonly<Record<string, number>>;
  /** The first ones. */
  readonly findings: readonly (ScrubFinding & { readonly backend: string })[];
  /** Backends that could not be looked at. */
  readonly failures: readonly { readonly backend: string; readonly error: StowageError }[];
}

const findingsShownMax = 1000;
/** Of what lies at a backend and is nothing of ours: there may be millions. */
const foreignNamedMax = 1000;
const readsAtOnce = 4;
const progressEvery = 100;

/**
 * Reads everything back and compares it with what was recorded.
 *
 * | step | durable | a crash leaves | then |
 * |---|---|---|---|
 * | a location was read and is right | when (`checked_at`), with the next batch | – | it is read again |
 * | a location is wrong, twice | the damage beside the location, and the finding | the finding | – |
 * | a batch | how far the scrub has come | the last batch unrecorded | the next scrub goes on behind the batch before |
 */
export async function scrub(
  database: Database,
  backends: readonly Backend[],
  options: ScrubOptions,
  call: Call,
): Promise<ScrubReport> {
  const { row, resumed } = await openScrub(database, options);
  const total = await scrubTotal(database);
  const left = (all: number, read: number) => Math.max(0, Math.round(all * row.share) - read);
  const task = options.begin({
    share: row.share,
    objectsLeft: left(total.objects, row.objects),
    bytesLeft: left(total.bytes, row.bytes),
    resumed: resumed && { startedAt: row.startedAt, objects: row.objects, bytes: row.bytes },
  });
  const run = new Scrub(database, row, options, task, call);
  const failures: { backend: string; error: StowageError }[] = [];
  const sorted = backends.toSorted((one, other) => one.id - other.id);
  for (const backend of sorted) {
    const isBehind = row.backendId !== undefined && backend.id < row.backendId;
    try {
      // Of the part that was read before the interruption, what was found is mended now, if that is wanted now.
      if (resumed !== undefined && options.repair !== undefined) {
        await run.revisit(backend, isBehind ? undefined : backend.id === row.backendId ? row.afterKey : "");
      }
      if (isBehind) continue;
      await run.read(backend, backend.id === row.backendId ? (row.afterKey as PhysicalKey) : undefined);
    } catch (error) {
      throwIfAborted(call);
      failures.push({ backend: backend.description, error: toStowageError(error) });
      // The next scrub begins again where this one failed.
      run.isPlaceKept = true;
    }
  }
  if (failures.length === 0) await endScrub(database, row.id);
  const { findings, counts } = await readFindings(database, row.id, findingsShownMax);
  const damaged = await countDamaged(database);
  const unreadable = await countUnreadable(database, row.id);
  task.end(damaged + unreadable === 0 ? "no damage" : `${damaged + unreadable} damaged`);
  const placeOf = (id: number) => sorted.find((backend) => backend.id === id)?.description ?? String(id);
  return {
    id: row.id,
    startedAt: row.startedAt,
    isResumed: resumed !== undefined,
    objects: run.objects,
    bytes: run.bytes,
    repaired: run.repaired,
    givenUp: run.givenUp,
    forgotten: run.forgotten,
    notNeeded: run.notNeeded,
    damaged,
    unreadable,
    counts,
    findings: findings.map((finding) => ({ ...finding, backend: placeOf(finding.backendId) })),
    failures,
  };
}

/** There is one unfinished scrub at most: whoever comes second, be it at the same moment, goes on with it. */
async function openScrub(
  database: Database,
  { share, seed, restart }: ScrubOptions,
): Promise<{ readonly row: ScrubRow; readonly resumed: ScrubRow | undefined }> {
  for (let isFirst = true; ; isFirst = false) {
    const unfinished = await findUnfinishedScrub(database);
    if (unfinished !== undefined && !(restart && isFirst)) return { row: unfinished, resumed: unfinished };
    if (unfinished !== undefined) await endScrub(database, unfinished.id);
    const begun = await beginScrub(database, share, seed);
    if (begun !== undefined) return { row: begun, resumed: undefined };
  }
}

class Scrub {
  readonly #database: Database;
  readonly #row: ScrubRow;
  readonly #options: ScrubOptions;
  readonly #task: ProgressTask;
  readonly #rate: RateLimit;
  readonly #call: Call;
  objects: number;
  bytes: number;
  repaired = 0;
  givenUp = 0;
  forgotten = 0;
  notNeeded = 0;
  /** How far it has come is no longer recorded. */
  isPlaceKept = false;
  #right: number[] = [];

  constructor(database: Database, row: ScrubRow, options: ScrubOptions, task: ProgressTask, call: Call) {
    this.#database = database;
    this.#row = row;
    this.#options = options;
    this.#task = task;
    this.#rate = new RateLimit(options.clock, options.bytesPerSecondMax);
    this.#call = call;
    this.objects = row.objects;
    this.bytes = row.bytes;
  }

  async read(backend: Backend, after: PhysicalKey | undefined): Promise<void> {
    const driver = await backend.driver(this.#call);
    let batch: Placed[] = [];
    for await (const placed of walk(this.#database, backend.id, driver, after, this.#call)) {
      batch.push(placed);
      if (batch.length < progressEvery) continue;
      await this.#batch(backend, driver, batch);
      batch = [];
    }
    if (batch.length > 0) await this.#batch(backend, driver, batch);
    await this.#readForeign(backend, driver);
  }

  /** Names what lies there under no name of a blob: the first of it each, the rest together. */
  async #readForeign(backend: Backend, driver: ObjectDriver): Promise<void> {
    const rest = { count: 0, bytes: 0 };
    let named = 0;
    for await (const { foreign, row } of walkForeign(this.#database, backend.id, driver, this.#call)) {
      throwIfAborted(this.#call);
      if (row?.state === "pending" || row?.state === "deleting") continue;
      if (named++ < foreignNamedMax) {
        const name = recordableName(foreign.name);
        await this.#found(backend, name, "extra", describeForeign(foreign, row), foreign.sizeBytes);
      } else {
        rest.count++;
        rest.bytes += foreign.sizeBytes;
      }
    }
    if (rest.count === 0) return;
    await this.#found(backend, "…", "extra", `${rest.count} more that are nothing of stowage's`, rest.bytes);
  }

  /** What was found damaged up to a key, or all of it, is looked at again. */
  async revisit(backend: Backend, key = "~"): Promise<void> {
    const keys = await damagedUpTo(this.#database, backend.id, key);
    if (keys.length === 0) return;
    const driver = await backend.driver(this.#call);
    for (const each of keys) {
      const row = await findPlaced(this.#database, backend.id, each);
      if (row === undefined) continue;
      const pointers = await findPointers(this.#database, [row.id]);
      await this.#look(backend, driver, { key: each, listed: undefined, row }, pointers);
    }
  }

  async #batch(backend: Backend, driver: ObjectDriver, batch: readonly Placed[]): Promise<void> {
    const ids = batch.flatMap(({ row }) => row?.id ?? []);
    const pointers = await findPointers(this.#database, ids);
    await eachAtOnce(batch, readsAtOnce, (placed) => this.#look(backend, driver, placed, pointers));
    await recordChecked(this.#database, this.#right);
    this.#right = [];
    if (this.isPlaceKept) return;
    const afterKey = batch.at(-1)?.key ?? "";
    await recordScrubProgress(this.#database, this.#row.id, {
      backendId: backend.id,
      afterKey,
      objects: this.objects,
      bytes: this.bytes,
    });
    announce("objects scrubbed", { scrubId: this.#row.id });
  }

  async #look(
    backend: Backend,
    driver: ObjectDriver,
    { key, listed, row }: Placed,
    pointers: ReadonlyMap<number, ObjectRef>,
  ): Promise<void> {
    throwIfAborted(this.#call);
    if (row === undefined) {
      const detail = await this.#describeExtra(driver, key);
      await this.#found(backend, key, "extra", detail, listed?.sizeBytes);
      return;
    }
    // What is being written or removed just now is neither here nor there.
    if (row.located === undefined || row.state === "pending" || row.state === "deleting") return;
    // Whose the bytes are is written before them and never changes: a pointer of another object is wrong, whatever happens meanwhile.
    const owner = pointers.get(row.id) ?? row.ref;
    if (!isSameObject(owner, row.ref)) {
      const trouble: Trouble = { kind: "damaged", detail: `those of ${nameOf(row.ref)}` };
      await this.#trouble(backend, key, { ...row, ref: owner }, trouble);
      return;
    }
    const isSuspect =
      listed === undefined || listed.sizeBytes !== row.located.storedBytes || row.located.damage !== undefined;
    if (!isSuspect && !this.#isInSample(row.id)) return;
    await this.#rate.pay(row.located.storedBytes, this.#call);
    const trouble = await this.#inspect(driver, row.located);
    this.objects++;
    this.bytes += row.located.storedBytes;
    this.#task.advance(row.located.storedBytes);
    if (trouble === undefined) this.#right.push(row.id);
    else await this.#trouble(backend, key, row, trouble);
  }

  async #trouble(backend: Backend, key: PhysicalKey, row: PlacedRow, trouble: Trouble): Promise<void> {
    // It may have gone while it was read.
    const now = await findPlaced(this.#database, backend.id, key);
    if (now?.located === undefined || now.state === "deleting" || now.state === "pending") return;
    const remark = now.state === "live" ? "" : " (replaced or deleted since: not needed any more)";
    const detail = `${nameOf(row.ref)}${remark}: ${trouble.detail}`;
    if (trouble.kind !== "unreadable") await recordDamage(this.#database, row.id, trouble.detail);
    await this.#found(backend, key, trouble.kind, detail, now.located.storedBytes);
    if (now.state !== "live") this.notNeeded++;
    if (this.#options.repair === undefined || trouble.kind === "unreadable") return;
    const version = await this.#versionAt(row.ref, row.id);
    if (version === undefined) return;
    const outcome = await this.#options.repair(version, this.#call);
    if (outcome === undefined) return;
    this[outcome]++;
    const left = await findPlaced(this.#database, backend.id, key);
    if (outcome === "givenUp" && left?.state !== "live") this.forgotten++;
  }

  /** The visible version of the object, if this is where it lies. */
  async #versionAt(ref: ObjectRef, locationId: number): Promise<(ObjectVersion & Located) | undefined> {
    const [version] = await findVersions(this.#database.sql, [ref]);
    return version?.locationId === locationId ? version : undefined;
  }

  async #inspect(driver: ObjectDriver, at: Located): Promise<Trouble | undefined> {
    const first = await inspect(driver, at, this.#call);
    // What was read wrong once may be right.
    return first === undefined ? undefined : await inspect(driver, at, this.#call);
  }

  async #describeExtra(driver: ObjectDriver, key: PhysicalKey): Promise<string> {
    try {
      const header = await readHeader(driver, key, this.#call);
      if (header === undefined) return "nothing of stowage's";
      return `${nameOf(header)} of installation ${header.installation}`;
    } catch (error) {
      throwIfAborted(this.#call);
      return `not readable: ${messageOf(error)}`;
    }
  }

  async #found(
    backend: Backend,
    physicalKey: string,
    kind: FindingKind,
    detail: string,
    bytes: number | undefined,
  ): Promise<void> {
    const finding = { backendId: backend.id, physicalKey, kind, detail: recordable(detail), bytes };
    await recordFinding(this.#database, this.#row.id, finding);
  }

  #isInSample(id: number): boolean {
    const { share, seed } = this.#row;
    if (share >= 1) return true;
    const number = createHash("sha256").update(`${seed}:${id}`).digest().readUInt32LE(0);
    return number / 2 ** 32 < share;
  }
}

function describeForeign({ partOf }: ForeignBlob, row: PlacedRow | undefined): string {
  if (partOf === undefined) return "nothing of stowage's";
  const whose = row === undefined ? "a write that no record knows of" : `a write of ${nameOf(row.ref)}, which is there`;
  return `unfinished: a part of ${whose}`;
}

const nameCharactersMax = 300;

/** Longer names would not fit into an index; their digest tells them apart. */
function recordableName(name: string): string {
  if (name.length <= nameCharactersMax) return recordable(name);
  const digest = createHash("sha256").update(name).digest("hex").slice(0, 12);
  return `${recordable(name.slice(0, nameCharactersMax))}… (${digest})`;
}

const detailCharactersMax = 500;

/** What a stranger's bytes say of themselves may be long, and have in it what the database takes in no text. */
function recordable(detail: string): string {
  const short = detail.length > detailCharactersMax ? `${detail.slice(0, detailCharactersMax)}…` : detail;
  return short.replaceAll("\0", "\ufffd").toWellFormed();
}

interface Trouble {
  readonly kind: FindingKind;
  readonly detail: string;
}

/** Reads a location through and says what is wrong with it, if something is. */
async function inspect(driver: ObjectDriver, at: Located, call: Call): Promise<Trouble | undefined> {
  try {
    const wrong = await readThrough(driver, at, call);
    return wrong && { kind: wrong.isTooShort ? "truncated" : "damaged", detail: wrong.actual };
  } catch (error) {
    throwIfAborted(call);
    if (isCode(error, "BACKEND_KEY_MISSING")) return { kind: "missing", detail: "its bytes are missing" };
    if (error instanceof StowageError) return { kind: "unreadable", detail: error.message };
    throw error;
  }
}
