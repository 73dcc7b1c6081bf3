import type { Database, HeldLock, MoveState } from "../db/index.ts";
import { StowageError } from "../errors/index.ts";
import type { Copies, ObjectStore, StoreMaintenance } from "../objects/index.ts";
import { announce, type Call, type Clock, createCall, throwIfAborted } from "../runtime/index.ts";
import { Mover } from "./mover.ts";
import { unfinished } from "./moves.ts";
import { canonical, type MigrationOrder, optionsOf, selectionFrom } from "./order.ts";
import { Outage } from "./outage.ts";
import { Pace } from "./pace.ts";
import { type MigrationSnapshot, type ProgressKeeper, progressOf } from "./progress.ts";
import {
  abandonMoves,
  beginLife,
  countMoves,
  endMigration,
  expectLife,
  type FailedMove,
  failedMoves,
  findMigration,
  findOverlapping,
  insertMigration,
  listMigrationRecords,
  type MigrationLife,
  type MigrationOptions,
  type MigrationRecord,
  type MoveCounts,
  planAlone,
  planMoves,
  previewSelection,
  type SelectedGroup,
} from "./rows.ts";
import type { Selection } from "./selection.ts";

/** How it is done, as opposed to what. */
export interface MigrationPace {
  readonly concurrency: number | "auto";
  readonly bytesPerSecondMax?: number;
  readonly executor: string;
  readonly clock: Clock;
  /** How often what could not go on is tried again before the end. */
  readonly passesMax: number;
  readonly watch: (snapshot: MigrationSnapshot) => void;
  /** Names the processes that have the store open and cannot reach all of these backends. Asked for an online migration only. */
  readonly unready?: (backendIds: readonly number[], call: Call) => Promise<readonly string[]>;
}

export interface MigrationStatus extends MigrationRecord {
  readonly counts: MoveCounts;
}

type Store = Pick<ObjectStore, "reap"> & Pick<StoreMaintenance, "copies" | "reclaimable">;
type Backends = Pick<Selection, "sourceBackendId" | "destinationBackendId" | "archiveBackendId">;

const retryDelaysMs = [1000, 5000];
/** Between two looks at what others are doing. */
const waitMs = 1000;
const reapedAtOnce = 1000;
const archiveBucket = "analysis_archive";
const unmoved = ["planned", "copied", "verified"] as const;
/** After an interrupt, what is under way gets so long to come to its end. */
const endingMs = 30_000;

/** Migrations of objects between backends, and their journal. */
export class Migrations {
  readonly #database: Database;
  readonly #store: Store;
  readonly #copies: Copies;

  constructor(database: Database, store: Store) {
    this.#database = database;
    this.#store = store;
    this.#copies = store.copies;
  }

  preview(selection: Selection): Promise<readonly SelectedGroup[]> {
    return previewSelection(this.#database, selection);
  }

  async list(): Promise<readonly MigrationStatus[]> {
    const records = await listMigrationRecords(this.#database);
    return await Promise.all(records.map((record) => this.#status(record)));
  }

  /** @throws StowageError `MIGRATION_NOT_FOUND` */
  async get(id: number): Promise<MigrationStatus> {
    const record = await findMigration(this.#database, id);
    if (record === undefined) throw new StowageError("MIGRATION_NOT_FOUND", { migration: id });
    return await this.#status(record);
  }

  failures(id: number): AsyncIterable<FailedMove> {
    return failedMoves(this.#database, id);
  }

  /** The same order, given before and not brought to its end. */
  async findUnfinished(
    order: MigrationOrder,
    database: Pick<Database, "sql"> = this.#database,
  ): Promise<MigrationRecord | undefined> {
    const options = JSON.stringify(optionsOf(order));
    const records = await listMigrationRecords(database);
    return records.find(
      (record) =>
        !["complete", "cancelled"].includes(record.state) &&
        canonical(record.options) === canonical(JSON.parse(options) as MigrationOptions),
    );
  }

  /**
   * Writes down what is to be moved, in one transaction: there is no half plan. Where the same order has been planned meanwhile, that plan is it: of two,
   * each would wait for what the other has.
   * @throws StowageError `MIGRATION_OVERLAPS` when another migration has one of the objects
   */
  async plan(order: MigrationOrder, executor: string, call: Call): Promise<number> {
    const id = await this.#database.transaction(async (tx) => {
      await planAlone(tx);
      const unfinished = await this.findUnfinished(order, tx);
      if (unfinished !== undefined) return unfinished.id;
      const overlapping = await findOverlapping(tx, order.selection);
      if (overlapping !== undefined) throw overlaps(overlapping);
      const { source, destination } = order;
      const planned = await insertMigration(tx, { source, destination, options: optionsOf(order), executor });
      await planMoves(tx, planned, order.selection);
      const { destinationBackendId, archiveBackendId } = order.selection;
      // Of an online migration the other way: what is to receive objects must not send new ones away.
      await this.#copies.clearRedirectsFrom(tx, [destinationBackendId, archiveBackendId]);
      return planned;
    }, call);
    announce("migration planned", { id });
    return id;
  }

  /**
   * Carries out a migration, or goes on with one that was interrupted. The caller holds the store for itself alone.
   * An abort of `call` stops cleanly after the objects under way.
   *
   * @throws StowageError `MIGRATION_BUSY` when another process is at it, `INPUT_INTERRUPTED`, why a place can't be used: what was not tried is left
   */
  async run(id: number, pace: MigrationPace, call: Call): Promise<MigrationStatus> {
    await using lock = await this.#lock(id, call);
    const record = await this.get(id);
    if (record.state === "complete" || record.state === "cancelled") return record;
    const { selection, keepsSources, verify, isOnline } = record.options;
    await this.#copies.open(
      [...new Set([selection.sourceBackendId, selection.destinationBackendId, selection.archiveBackendId])],
      call,
    );
    const self = await beginLife(this.#database, id, pace.executor);
    if (self === undefined) return await this.get(id);
    const done = progressOf(record, pace.watch);
    const ending = endingAfter(call, lock);
    const options = { keepsSources, verify, isExclusive: !isOnline, ...done };
    const { clock, concurrency, bytesPerSecondMax } = pace;
    const speed = new Pace({ clock, concurrency, bytesPerSecondMax, isConsiderate: isOnline });
    const outage = () => new Outage(pace.clock, call, done.paused);
    const outages = { copying: outage(), verifying: outage() };
    const mover = new Mover(this.#database, this.#copies, self, options, speed, outages, call.signal, ending.call);
    // What was written meanwhile is not known before it has been caught up with.
    let isAllKnown = false;
    try {
      if (isOnline) await this.#redirect(record, self, pace, call);
      await this.#passes(id, mover, pace, done, call);
      isAllKnown = isOnline
        ? await this.#catchUp(record, self, mover, pace, done, call)
        : await this.#moveAnew(record, self, mover, pace, done, call);
    } finally {
      ending.stop();
      await this.#end(record, self, isAllKnown).catch((error: unknown) =>
        call.log.warn({ err: error }, "migration's end not recorded"),
      );
    }
    throwIfAborted(call);
    done.phase("ended");
    return await this.get(id);
  }

  async #passes(id: number, mover: Mover, pace: MigrationPace, done: ProgressKeeper, call: Call): Promise<void> {
    for (let pass = 1; pass <= pace.passesMax; pass++) {
      done.phase(pass === 1 ? "moving" : "trying again");
      await mover.pass();
      if (call.signal.aborted || (await this.#left(id, unmoved)) === 0) return;
      if (pass < pace.passesMax) await pace.clock.sleep(retryDelaysMs[pass - 1] ?? 5000, call).catch(() => {});
    }
  }

  /** @throws StowageError `MIGRATION_STORE_IN_USE` when others have the store open and can't reach all places of an online migration */
  async refuseUnready(selection: Backends, unready: MigrationPace["unready"], call: Call): Promise<void> {
    const { sourceBackendId, destinationBackendId, archiveBackendId } = selection;
    const processes = (await unready?.([sourceBackendId, destinationBackendId, archiveBackendId], call)) ?? [];
    if (processes.length === 0) return;
    const hint =
      "they do not know both stores: add the destination to services.catalog.other_object_stores of their configuration and start them again";
    throw new StowageError("MIGRATION_STORE_IN_USE", { processes }, { hint });
  }

  /** New objects go to the destination, once everybody can reach it. */
  async #redirect(
    { id, options }: MigrationRecord,
    self: MigrationLife,
    pace: MigrationPace,
    call: Call,
  ): Promise<void> {
    const { sourceBackendId, destinationBackendId, archiveBackendId, buckets } = options.selection;
    await this.refuseUnready(options.selection, pace.unready, call);
    const to = (bucket: string) => (bucket === archiveBucket ? archiveBackendId : destinationBackendId);
    const redirects = (buckets ?? ["*", archiveBucket])
      .map((bucket) => ({ backendId: sourceBackendId, bucket, toBackendId: to(bucket) }))
      .filter(({ toBackendId }) => toBackendId !== sourceBackendId);
    await this.#database.transaction(async (tx) => {
      await expectLife(tx, self);
      await this.#copies.setRedirects(tx, id, redirects);
    }, call);
    announce("migration redirected", { id });
  }

  /** What was written or mended at the source since it was planned, before the store was ours alone. False when it was interrupted before all was known. */
  async #moveAnew(
    record: MigrationRecord,
    self: MigrationLife,
    mover: Mover,
    pace: MigrationPace,
    done: ProgressKeeper,
    call: Call,
  ): Promise<boolean> {
    for (;;) {
      if (call.signal.aborted) return false;
      if ((await this.#moveAdded(record, self, mover, pace, done, call)) === 0) return true;
    }
  }

  /** Plans once more, and moves what that has added. Returns how many objects that were. */
  async #moveAdded(
    { id, options }: MigrationRecord,
    self: MigrationLife,
    mover: Mover,
    pace: MigrationPace,
    done: ProgressKeeper,
    call: Call,
  ): Promise<number> {
    const added = await this.#database.transaction(async (tx) => {
      await expectLife(tx, self);
      return await planMoves(tx, id, selectionFrom(options));
    }, call);
    if (added === 0) return 0;
    done.planned(await this.get(id));
    await this.#passes(id, mover, pace, done, call);
    return added;
  }

  /**
   * Until nothing is left at the source: what was written there before writers knew better, and what readers may still read. False when it was
   * interrupted before all was known.
   */
  async #catchUp(
    record: MigrationRecord,
    self: MigrationLife,
    mover: Mover,
    pace: MigrationPace,
    done: ProgressKeeper,
    call: Call,
  ): Promise<boolean> {
    const { id, options } = record;
    for (;;) {
      if (call.signal.aborted) return false;
      const writers = await this.#copies.countWriters(options.selection.sourceBackendId);
      const added = await this.#moveAdded(record, self, mover, pace, done, call);
      // Writers that were counted before the plan may have published since; those after it know the redirection.
      if (added === 0 && writers === 0) break;
      done.phase("waiting for writers");
      await pace.clock.sleep(waitMs, call).catch(() => {});
    }
    let waitsUntil: Date | undefined;
    while (!call.signal.aborted && (await this.#left(id, ["switched"])) > 0) {
      if (waitsUntil === undefined || waitsUntil <= pace.clock.now())
        waitsUntil = await this.#readersUntil(record, pace, call);
      done.phase("waiting for readers", waitsUntil);
      const { failures } = await this.#store.reap(reapedAtOnce, call);
      for (const { backend, error } of failures) call.log.warn({ err: error, backend }, "source not deleted");
      await mover.finish();
      if ((await this.#left(id, ["switched"])) > 0) await pace.clock.sleep(waitMs, call).catch(() => {});
    }
    return true;
  }

  /** When the last of what was left at the source may be deleted. */
  async #readersUntil({ options }: MigrationRecord, { clock }: MigrationPace, call: Call): Promise<Date | undefined> {
    const { sourceBackendId } = options.selection;
    const waiting = (await this.#store.reclaimable(call)).filter(
      ({ backendId, state, isDue }) => backendId === sourceBackendId && state === "retired" && !isDue,
    );
    if (waiting.length === 0) return undefined;
    const seconds = Math.max(...waiting.map(({ dueInSeconds }) => dueInSeconds));
    return new Date(clock.now().getTime() + seconds * 1000);
  }

  /** Ends a migration where it is: what has been switched stays at the destination, all else at the source. */
  async cancel(id: number, call: Call): Promise<MigrationStatus> {
    await using _ = await this.#lock(id, call);
    const record = await this.get(id);
    if (record.state === "complete" || record.state === "cancelled") return record;
    const self = await beginLife(this.#database, id);
    if (self === undefined) return await this.get(id);
    // All of it at once: half of a cancelled migration, gone on with, would seem to be complete without its other half.
    await this.#database.transaction(async (tx) => {
      await expectLife(tx, self);
      await this.#copies.releaseAll(tx, id);
      await this.#copies.clearRedirectsOf(tx, id);
      const count = await abandonMoves(tx, id);
      await endMigration(tx, id, "cancelled");
      announce("migration abandoned", { count });
    }, call);
    return await this.get(id);
  }

  async #status(record: MigrationRecord): Promise<MigrationStatus> {
    const { lastAt, ...counts } = await countMoves(this.#database.sql, record.id);
    const updatedAt = lastAt === undefined || lastAt < record.updatedAt ? record.updatedAt : lastAt;
    return { ...record, updatedAt, counts };
  }

  async #left(id: number, states: readonly MoveState[]): Promise<number> {
    return leftOf(await countMoves(this.#database.sql, id), states);
  }

  /** Says what is true: complete only when all is known and every move has come to its end. */
  async #end({ id, options }: MigrationRecord, self: MigrationLife, isAllKnown: boolean): Promise<void> {
    // Not under the call, which may have been aborted: what was done is told all the same.
    const state = await this.#database.transaction(async (tx) => {
      await expectLife(tx, self);
      // Who has stood still since all was known may have lost the store without knowing it: others can have written to the source.
      if (isAllKnown) await planMoves(tx, id, selectionFrom(options));
      const left = leftOf(await countMoves(tx.sql, id), unfinished);
      const ended = isAllKnown && left === 0 ? "complete" : "incomplete";
      await endMigration(tx, id, ended);
      return ended;
    }, createCall());
    announce("migration ended", { id, state });
  }

  async #lock(id: number, call: Call): Promise<HeldLock> {
    const lock = await this.#database.lock(`migration ${id}`, "exclusive", 0, call);
    if (lock !== undefined) return lock;
    const { executor } = await this.get(id);
    throw new StowageError(
      "MIGRATION_BUSY",
      { migration: id, executor },
      { hint: "wait for it, or end that process: it can be gone on with" },
    );
  }
}

function leftOf(counts: MoveCounts, states: readonly MoveState[]): number {
  return states.reduce((sum, state) => sum + counts[state].objects, 0);
}

function overlaps(id: number): StowageError {
  return new StowageError(
    "MIGRATION_OVERLAPS",
    { migration: id },
    { hint: `go on with it: stowage objectstorage migration resume ${id}, or end it: … migration cancel ${id}` },
  );
}

/** A call that is aborted a while after the other, so that what is under way can come to its end, or at once when the lock is lost. */
function endingAfter(call: Call, lock: HeldLock): { readonly call: Call; stop(): void } {
  const late = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const begin = () => {
    timer = setTimeout(() => late.abort(call.signal.reason), endingMs);
    timer.unref();
  };
  if (call.signal.aborted) begin();
  else call.signal.addEventListener("abort", begin, { once: true });
  return {
    call: { ...call, signal: AbortSignal.any([late.signal, lock.signal]) },
    stop() {
      clearTimeout(timer);
      call.signal.removeEventListener("abort", begin);
    },
  };
}
