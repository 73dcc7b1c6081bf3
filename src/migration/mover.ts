import type { Database, Transaction } from "../db/index.ts";
import { isCode, type StowageError, toStowageError } from "../errors/index.ts";
import type { Copies } from "../objects/index.ts";
import { announce, type Call, throwIfAborted } from "../runtime/index.ts";
import type { Move } from "./moves.ts";
import type { Outage } from "./outage.ts";
import type { Errand, Pace } from "./pace.ts";
import { advanceMoves, claimMoves, expectLife, type MigrationLife, noteFailures, setDestinations } from "./rows.ts";

export interface MoverOptions {
  readonly keepsSources: boolean;
  /** Nobody else has the store open: what was left can be deleted at once. */
  readonly isExclusive: boolean;
  readonly verify: "readback" | "checksum";
  /** These have gone on: they are at the destination now, or nothing is to be moved any more. */
  readonly moved: (moves: readonly Move[]) => void;
  /** These could not go on, or have got over it; each by its source. */
  readonly failed: (sourceLocationIds: readonly number[]) => void;
  readonly mended: (sourceLocationIds: readonly number[]) => void;
  /** An object has been copied; it is neither proven nor found at the destination yet. */
  readonly copied: (bytes: number) => void;
}

/** Moves that are made durable together. Small enough that a crash costs little, large enough that the database is asked seldom. */
const batchSize = 128;
/** A batch of large objects ends sooner. */
const batchBytesMax = 64 * 1024 * 1024;
/** So does one whose copies take long: what has been copied by then is made durable before the rest is begun. */
const batchMs = 1500;
/** Batches at work at once: each waits for the database and for its slowest object, and the others have work for the backends meanwhile. */
const lanes = 4;
/** What is copied and not yet recorded, of all of them together, unless one object alone has more: a crash costs no more than a second or two of copying. */
const bytesUnrecordedMax = 128 * 1024 * 1024;

/** Apart from each other: a place that is full, or takes nothing from us, may well be read. */
export type Outages = Readonly<Record<Errand, Outage>>;

type IntendedCopy = Awaited<ReturnType<Copies["intend"]>>[number];
type Located = Awaited<ReturnType<Copies["located"]>>;

/** Carries the moves of a migration from state to state. */
export class Mover {
  readonly #database: Database;
  readonly #copies: Copies;
  readonly #id: number;
  readonly #self: MigrationLife;
  readonly #options: MoverOptions;
  readonly #pace: Pace;
  readonly #outages: Outages;
  /** Fires when no further object is to be begun; what is under way is brought to its end. */
  readonly #stop: AbortSignal;
  readonly #call: Call;

  constructor(
    database: Database,
    copies: Copies,
    self: MigrationLife,
    options: MoverOptions,
    pace: Pace,
    outages: Outages,
    stop: AbortSignal,
    call: Call,
  ) {
    this.#database = database;
    this.#copies = copies;
    this.#self = self;
    this.#id = self.id;
    this.#options = options;
    this.#pace = pace;
    this.#outages = outages;
    this.#stop = stop;
    this.#call = call;
  }

  /** Notes which sources the reaper has deleted meanwhile. */
  async finish(): Promise<void> {
    await this.#each("switched", (moves) => this.#finish(moves));
  }

  /**
   * One pass over everything that has not come to its end: first what was begun before, then the rest.
   * @throws StowageError the reason why a place can't be used
   */
  async pass(): Promise<void> {
    await this.#each("switched", (moves) => this.#finish(moves));
    await this.#each("verified", (moves) => this.#switch(moves));
    await this.#each("copied", (moves) => this.#verify(moves));
    await this.#each("planned", (moves, share) => this.#copy(moves, share));
    const reason = this.#outages.copying.reason ?? this.#outages.verifying.reason;
    if (reason !== undefined) throw reason;
  }

  async #each(state: Move["state"], work: (moves: readonly Move[], share: Share) => Promise<void>): Promise<void> {
    let after = 0;
    let claiming: Promise<unknown> = Promise.resolve();
    const room = new Room(bytesUnrecordedMax);
    // All lanes share the rate that is asked for.
    const bytesMax = Math.min(batchBytesMax, this.#pace.bytesIn(batchMs) / lanes);
    const next = () => {
      const claimed = claiming.then(async () => {
        const moves = firstOf(await claimMoves(this.#database, this.#id, state, after, batchSize), bytesMax);
        after = moves.at(-1)?.sourceLocationId ?? after;
        return { moves, share: await room.take(bytesOf(moves)) };
      });
      claiming = claimed;
      return claimed;
    };
    const lane = async () => {
      while (!this.#isEnding) {
        const { moves, share } = await next();
        using _ = share;
        if (moves.length === 0) return;
        await work(moves, share);
      }
    };
    const results = await Promise.allSettled(Array.from({ length: lanes }, lane));
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }

  async #copy(moves: readonly Move[], share: Share): Promise<void> {
    const intended = await this.#transaction(async (tx) => {
      // Of an earlier life: whether its bytes are whole is not known.
      await this.#copies.release(tx, defined(moves.map((move) => move.destinationLocationId)));
      const wanted = moves.map((move) => ({
        sourceLocationId: move.sourceLocationId,
        backendId: move.destinationBackendId,
      }));
      const copies = await this.#copies.intend(tx, this.#id, wanted);
      await setDestinations(tx, this.#id, copies);
      return copies;
    });
    announce("migration intended", { count: intended.length });
    const copies = new Map(intended.map((copy) => [copy.sourceLocationId, copy]));
    let left: readonly Move[] = moves.filter((move) => copies.has(move.sourceLocationId));
    const sources = await this.#copies.located(left.map((move) => move.sourceLocationId));
    const ahead = this.#copies.readAhead(defined(left.map((move) => sources.get(move.sourceLocationId))));
    await this.#supersede(moves.filter((move) => !copies.has(move.sourceLocationId)));
    while (left.length > 0 && !this.#isEnding) {
      left = await this.#copySome(left, copies, sources, ahead, share);
    }
  }

  /** What could not be moved is nothing to move any more. */
  async #supersede(moves: readonly Move[]): Promise<void> {
    if (moves.length === 0) return;
    const gone = moves.map((move) => move.sourceLocationId);
    await this.#transaction((tx) => advanceMoves(tx, this.#id, gone, "planned", "superseded"));
    this.#options.moved(moves);
    this.#options.mended(gone);
  }

  /** Copies until that takes too long, and brings what was copied to its end. Returns what was not begun. */
  async #copySome(
    moves: readonly Move[],
    copies: ReadonlyMap<number, IntendedCopy>,
    sources: Located,
    ahead: ReturnType<Copies["readAhead"]>,
    share: Share,
  ): Promise<readonly Move[]> {
    const failures: { sourceLocationId: number; error: StowageError }[] = [];
    const copied: { sourceLocationId: number; locationId: number; written: Awaited<ReturnType<Copies["copy"]>> }[] = [];
    const begun = new Set<number>();
    // From the first that is begun: while others are at work, a batch may have to wait for its turn.
    let isLate = () => false;
    await this.#atOnce(moves, "copying", failures, async ({ sourceLocationId }) => {
      if (isLate() && !begun.has(sourceLocationId)) return false;
      if (begun.size === 0) isLate = this.#pace.timer(batchMs);
      begun.add(sourceLocationId);
      const source = sources.get(sourceLocationId);
      const copy = copies.get(sourceLocationId);
      if (source === undefined || copy === undefined) return false;
      // Who still waits for their turn when all is to stop has not begun.
      await this.#pace.pay(source.storedBytes, { ...this.#call, signal: this.#stop }).catch(() => {});
      throwIfAborted(this.#call);
      if (this.#stop.aborted) return false;
      const written = await this.#pace.watch("copying", () => this.#copies.copy(source, copy, ahead, this.#call));
      copied.push({ ...copy, written });
      this.#options.copied(source.storedBytes);
      return true;
    });
    announce("migration stored", { count: copied.length });
    const copiedIds = new Set(copied.map((each) => each.sourceLocationId));
    await this.#transaction(async (tx) => {
      await this.#copies.record(tx, copied);
      await advanceMoves(tx, this.#id, [...copiedIds], "planned", "copied");
      await noteFailures(tx, this.#id, failures, false);
    });
    announce("migration copied", { count: copied.length });
    share.give(bytesOf(moves.filter((move) => begun.has(move.sourceLocationId))));
    this.#note(failures, [...copiedIds]);
    await this.#verify(
      moves
        .filter((move) => copiedIds.has(move.sourceLocationId))
        .map((move) => ({
          ...move,
          state: "copied",
          destinationLocationId: copies.get(move.sourceLocationId)?.locationId,
        })),
    );
    return moves.filter((move) => !begun.has(move.sourceLocationId));
  }

  async #verify(moves: readonly Move[]): Promise<void> {
    const copies = await this.#copies.located(defined(moves.map((move) => move.destinationLocationId)));
    const ahead = this.#copies.readAhead(defined(moves.map((move) => copies.get(move.destinationLocationId ?? 0))));
    const failures: { sourceLocationId: number; error: StowageError }[] = [];
    const verified: Move[] = [];
    await this.#atOnce(moves, "verifying", failures, async (move) => {
      const copy = move.destinationLocationId === undefined ? undefined : copies.get(move.destinationLocationId);
      if (copy === undefined) throw new TypeError("a copied object has no copy");
      await this.#pace.watch("verifying", () => this.#copies.verify(copy, this.#options.verify, ahead, this.#call));
      verified.push(move);
      return true;
    });
    await this.#transaction(async (tx) => {
      const ids = verified.map((move) => move.sourceLocationId);
      await advanceMoves(tx, this.#id, ids, "copied", "verified");
      // What could not be read back right is worth nothing: it is copied again.
      await noteFailures(tx, this.#id, failures, true);
    });
    announce("migration verified", { count: verified.length });
    this.#note(failures, []);
    await this.#switch(verified.map((move) => ({ ...move, state: "verified" })));
  }

  async #switch(moves: readonly Move[]): Promise<void> {
    const { keepsSources } = this.#options;
    const pairs = moves.map((move) => ({
      sourceLocationId: move.sourceLocationId,
      locationId: move.destinationLocationId ?? 0,
    }));
    const switched = await this.#transaction(async (tx) => {
      const moved = await this.#copies.switch(tx, pairs, keepsSources);
      const rest = pairs.filter((pair) => !moved.has(pair.sourceLocationId));
      await advanceMoves(tx, this.#id, [...moved], "verified", keepsSources ? "done" : "switched");
      await advanceMoves(
        tx,
        this.#id,
        rest.map((pair) => pair.sourceLocationId),
        "verified",
        "superseded",
      );
      await this.#copies.release(
        tx,
        rest.map((pair) => pair.locationId),
      );
      return moved;
    });
    announce("migration switched", { count: switched.size });
    const moved = moves.filter((move) => switched.has(move.sourceLocationId));
    this.#options.moved(moves);
    if (!keepsSources) await this.#finish(moved.map((move) => ({ ...move, state: "switched" })));
  }

  /** Deletes what was left, or sees that the reaper has done so. */
  async #finish(moves: readonly Move[]): Promise<void> {
    const ids = moves.map((move) => move.sourceLocationId);
    const { gone, failures } = this.#options.isExclusive
      ? await this.#copies.deleteAtOnce(ids, this.#call)
      : { gone: await this.#copies.gone(ids), failures: new Map<number, StowageError>() };
    await this.#transaction(async (tx) => {
      await advanceMoves(tx, this.#id, gone, "switched", "done");
      const noted = [...failures].map(([sourceLocationId, error]) => ({ sourceLocationId, error }));
      await noteFailures(tx, this.#id, noted, false);
    });
    announce("migration done", { count: gone.length });
    this.#options.failed([...failures.keys()]);
    this.#options.mended(gone);
  }

  #note(failures: readonly { readonly sourceLocationId: number }[], mended: readonly number[]): void {
    this.#options.failed(failures.map(({ sourceLocationId }) => sourceLocationId));
    this.#options.mended(mended);
  }

  get #isEnding(): boolean {
    const { copying, verifying } = this.#outages;
    return this.#stop.aborted || copying.reason !== undefined || verifying.reason !== undefined;
  }

  /** Nothing is written down once another process has gone on with the migration. */
  async #transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return await this.#database.transaction(async (tx) => {
      await expectLife(tx, this.#self);
      return await work(tx);
    }, this.#call);
  }

  /** Does the work of each item when there is room for it, which says whether it tried; failures are collected, an abort of the whole is thrown. */
  async #atOnce<T extends Pick<Move, "sourceLocationId" | "storedBytes">>(
    items: readonly T[],
    errand: Errand,
    failures: { sourceLocationId: number; error: StowageError }[],
    work: (item: T) => Promise<boolean>,
  ): Promise<void> {
    const outage = this.#outages[errand];
    const results = await Promise.allSettled(
      items.map((item) =>
        this.#pace.run(errand, item.storedBytes, async () => {
          try {
            if (await outage.attempt(() => work(item))) this.#pace.speedUp();
          } catch (error) {
            throwIfAborted(this.#call);
            if (error instanceof TypeError) throw error;
            if (isCode(error, "BACKEND_THROTTLED")) this.#pace.slowDown();
            failures.push({ sourceLocationId: item.sourceLocationId, error: toStowageError(error) });
          }
        }),
      ),
    );
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }
}

/** For what is at work together. Takers come one after the other. */
class Room {
  readonly #most: number;
  #taken = 0;
  #given = Promise.withResolvers<void>();

  constructor(most: number) {
    this.#most = most;
  }

  /** Waits until there is room; what needs more than all of it gets it alone. */
  async take(bytes: number): Promise<Share> {
    while (this.#taken > 0 && this.#taken + bytes > this.#most) await this.#given.promise;
    this.#taken += bytes;
    return new Share(bytes, (given) => {
      this.#taken -= given;
      this.#given.resolve();
      this.#given = Promise.withResolvers();
    });
  }
}

/** A part of a room, which can be given back in parts. */
class Share implements Disposable {
  readonly #give: (bytes: number) => void;
  #bytes: number;

  constructor(bytes: number, give: (bytes: number) => void) {
    this.#bytes = bytes;
    this.#give = give;
  }

  give(bytes: number): void {
    this.#bytes -= bytes;
    this.#give(bytes);
  }

  [Symbol.dispose](): void {
    this.give(this.#bytes);
  }
}

function bytesOf(moves: readonly Move[]): number {
  return moves.reduce((sum, move) => sum + move.storedBytes, 0);
}

/** As many as have no more bytes than this together; at least one. */
function firstOf(moves: readonly Move[], bytesMax: number): readonly Move[] {
  let bytes = 0;
  const end = moves.findIndex((move, index) => {
    bytes += move.storedBytes;
    return index > 0 && bytes > bytesMax;
  });
  return end < 0 ? moves : moves.slice(0, end);
}

function defined<T>(items: readonly (T | undefined)[]): readonly T[] {
  return items.filter((item) => item !== undefined);
}
