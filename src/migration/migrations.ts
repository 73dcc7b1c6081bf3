import type { Database, HeldLock, MigrationState } from "../db/index.ts";
import { StowageError } from "../errors/index.ts";
import type { Copies } from "../objects/index.ts";
import { announce, type Call, type Clock, throwIfAborted } from "../runtime/index.ts";
import { Mover } from "./mover.ts";
import { unfinished } from "./moves.ts";
import { Pace } from "./pace.ts";
import {
  advanceMoves,
  claimMoves,
  countMoves,
  type FailedMove,
  failedMoves,
  findMigration,
  findOverlapping,
  insertMigration,
  listMigrationRecords,
  type MigrationOptions,
  type MigrationRecord,
  type MoveCounts,
  type PlaceName,
  planMoves,
  previewSelection,
  recordTotals,
  type SelectedGroup,
  setMigrationState,
} from "./rows.ts";
import type { Selection } from "./selection.ts";

export interface MigrationOrder {
  readonly selection: Selection;
  readonly source: PlaceName;
  readonly destination: PlaceName;
  readonly keepsSources: boolean;
  readonly verify: "readback" | "checksum";
  readonly files: readonly [source: string, destination: string];
}

/** How it is done, as opposed to what. */
export interface MigrationPace {
  readonly concurrency: number | "auto";
  readonly bytesPerSecondMax?: number;
  readonly executor: string;
  readonly clock: Clock;
  /** How often what could not go on is tried again before the end. */
  readonly passesMax: number;
  readonly watch: (snapshot: MigrationSnapshot) => void;
}

export interface MigrationSnapshot {
  readonly id: number;
  readonly phase: "planning" | "moving" | "trying again" | "ended";
  readonly objects: number;
  readonly bytes: number;
  /** At their destination, or superseded. */
  readonly objectsDone: number;
  readonly bytesDone: number;
  /** So far; some may still go through. */
  readonly failures: number;
}

export interface MigrationStatus extends MigrationRecord {
  readonly counts: MoveCounts;
}

const retryDelaysMs = [1000, 5000];
/** After an interrupt, what is under way gets so long to come to its end. */
const endingMs = 30_000;

/** Migrations of objects between backends, and their journal. */
export class Migrations {
  readonly #database: Database;
  readonly #copies: Copies;

  constructor(database: Database, copies: Copies) {
    this.#database = database;
    this.#copies = copies;
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
  async findUnfinished(order: MigrationOrder): Promise<MigrationRecord | undefined> {
    const options = JSON.stringify(optionsOf(order));
    const records = await listMigrationRecords(this.#database);
    return records.find(
      (record) =>
        !["complete", "cancelled"].includes(record.state) &&
        canonical(record.options) === canonical(JSON.parse(options) as MigrationOptions),
    );
  }

  /**
   * Writes down what is to be moved, in one transaction: there is no half plan.
   * @throws StowageError `MIGRATION_OVERLAPS` when another migration has one of the objects
   */
  async plan(order: MigrationOrder, executor: string, call: Call): Promise<number> {
    const overlapping = await findOverlapping(this.#database, order.selection);
    if (overlapping !== undefined) throw overlaps(overlapping);
    const id = await this.#database.transaction(async (tx) => {
      const { source, destination } = order;
      const planned = await insertMigration(tx, { source, destination, options: optionsOf(order), executor });
      await planMoves(tx, planned, order.selection);
      await recordTotals(tx.sql, planned);
      return planned;
    }, call);
    announce("migration planned", { id });
    return id;
  }

  /**
   * Carries out a migration, or goes on with one that was interrupted. The caller holds the store for itself alone.
   * An abort of `call` stops cleanly after the objects under way.
   *
   * @throws StowageError `MIGRATION_BUSY` when another process is at it, `INPUT_INTERRUPTED`
   */
  async run(id: number, pace: MigrationPace, call: Call): Promise<MigrationStatus> {
    await using lock = await this.#lock(id, call);
    const record = await this.get(id);
    if (record.state === "complete" || record.state === "cancelled") return record;
    const { selection, keepsSources, verify } = record.options;
    await this.#copies.open(
      [...new Set([selection.sourceBackendId, selection.destinationBackendId, selection.archiveBackendId])],
      call,
    );
    await setMigrationState(this.#database.sql, id, "running", pace.executor);
    const done = progressOf(record, pace);
    const ending = endingAfter(call, lock);
    const options = { keepsSources, verify, isExclusive: true, moved: done.moved };
    const speed = new Pace(pace.clock, pace.concurrency, pace.bytesPerSecondMax);
    const mover = new Mover(this.#database, this.#copies, id, options, speed, call.signal, ending.call);
    try {
      for (let pass = 1; pass <= pace.passesMax; pass++) {
        done.phase(pass === 1 ? "moving" : "trying again");
        await mover.pass();
        if (call.signal.aborted || (await this.#left(id)) === 0) break;
        if (pass < pace.passesMax) await pace.clock.sleep(retryDelaysMs[pass - 1] ?? 5000, call).catch(() => {});
      }
    } finally {
      ending.stop();
      await this.#end(id).catch((error: unknown) => call.log.warn({ err: error }, "migration's end not recorded"));
    }
    throwIfAborted(call);
    done.phase("ended");
    return await this.get(id);
  }

  /** Ends a migration where it is: what has been switched stays at the destination, all else at the source. */
  async cancel(id: number, call: Call): Promise<MigrationStatus> {
    await using _ = await this.#lock(id, call);
    const record = await this.get(id);
    if (record.state === "complete" || record.state === "cancelled") return record;
    for (const state of ["planned", "copied", "verified"] as const) {
      for (;;) {
        const moves = await claimMoves(this.#database, id, state, 0, 1000);
        if (moves.length === 0) break;
        await this.#database.transaction(async (tx) => {
          const copies = moves.flatMap((move) => move.destinationLocationId ?? []);
          await this.#copies.release(tx, copies);
          await advanceMoves(
            tx,
            id,
            moves.map((move) => move.sourceLocationId),
            state,
            "abandoned",
          );
        }, call);
        announce("migration abandoned", { count: moves.length });
      }
    }
    // What was switched lies at the destination; the reaper takes the rest.
    for (;;) {
      const moves = await claimMoves(this.#database, id, "switched", 0, 1000);
      if (moves.length === 0) break;
      const ids = moves.map((move) => move.sourceLocationId);
      await this.#database.transaction((tx) => advanceMoves(tx, id, ids, "switched", "done"), call);
    }
    await setMigrationState(this.#database.sql, id, "cancelled");
    return await this.get(id);
  }

  async #status(record: MigrationRecord): Promise<MigrationStatus> {
    return { ...record, counts: await countMoves(this.#database, record.id) };
  }

  async #left(id: number): Promise<number> {
    const counts = await countMoves(this.#database, id);
    return unfinished.reduce((sum, state) => sum + counts[state].objects, 0);
  }

  /** Says what is true: complete only when every move has come to its end. */
  async #end(id: number): Promise<void> {
    const state: MigrationState = (await this.#left(id)) === 0 ? "complete" : "incomplete";
    await setMigrationState(this.#database.sql, id, state);
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

function optionsOf({ selection, keepsSources, verify, files }: MigrationOrder): MigrationOptions {
  const { since, until, ...rest } = selection;
  return {
    selection: {
      ...rest,
      ...(since === undefined ? {} : { since: since.toISOString() }),
      ...(until === undefined ? {} : { until: until.toISOString() }),
    },
    keepsSources,
    verify,
    files,
  };
}

/** What makes two orders the same: what is selected, and what becomes of the sources. */
function canonical({ selection, keepsSources }: MigrationOptions): string {
  const entries = Object.entries(selection).toSorted(([one], [other]) => (one < other ? -1 : 1));
  return JSON.stringify([entries, keepsSources]);
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

function progressOf(record: MigrationStatus, pace: MigrationPace) {
  const { counts } = record;
  let phase: MigrationSnapshot["phase"] = "moving";
  let objectsDone = counts.switched.objects + counts.done.objects + counts.superseded.objects;
  let bytesDone = counts.switched.bytes + counts.done.bytes + counts.superseded.bytes;
  let failures = 0;
  const tell = () => {
    const { id, objects, bytes } = record;
    pace.watch({ id, phase, objects, bytes, objectsDone, bytesDone, failures });
  };
  return {
    phase(now: MigrationSnapshot["phase"]) {
      phase = now;
      tell();
    },
    moved(objects: number, bytes: number, failed: number) {
      objectsDone += objects;
      bytesDone += bytes;
      failures += failed;
      tell();
    },
  };
}
