import type { KyselyPlugin } from "kysely";
import type { Database, HeldLock } from "../../src/db/index.ts";
import { runTransaction } from "../../src/db/transactions.ts";
import { StowageError } from "../../src/errors/index.ts";
import { manyWithin } from "../../src/objects/guard/pieces.ts";
import type { ObjectDriver } from "../../src/objects/index.ts";

/** Where a process can end, stand still, or see that others have done something: around each call of a backend or the database, and at each step. */
export interface Fate {
  /** Ends without cleaning up, at its n-th point. */
  readonly diesAt?: number;
  /** Ends without cleaning up, when a step of this name is announced for the n-th time. */
  readonly diesAtStep?: { readonly name: string; readonly nth: number };
  /** Ctrl-C. */
  readonly isInterruptedAt?: number;
  readonly isInterruptedAtStep?: { readonly name: string; readonly nth: number };
  /** Stands still, and is believed dead: its lock goes to whoever asks. */
  readonly standsStillAt?: number;
}

/** Locks of the simulated processes: they go with their holder. */
export class Locks {
  readonly #held = new Map<string, Life>();

  take(name: string, life: Life): boolean {
    if (this.#held.has(name)) return false;
    this.#held.set(name, life);
    return true;
  }

  releaseAll(life: Life): void {
    for (const [name, holder] of this.#held) if (holder === life) this.#held.delete(name);
  }
}

/**
 * One life of a process: everything that it does outside of itself goes through here, so that it can end at any moment. After its end nothing that it
 * does has an effect, as if it had been killed; what it had sent before may still arrive.
 */
export class Life {
  readonly #locks: Locks;
  readonly #fate: Fate;
  readonly #lockLost = new AbortController();
  readonly #interrupt = new AbortController();
  readonly #standing = Promise.withResolvers<void>();
  readonly #between: (life: Life, what: string) => Promise<void>;
  readonly #steps = new Map<string, number>();
  #gate: PromiseWithResolvers<void> | undefined;
  #going: PromiseWithResolvers<void> | undefined;
  #hasStood = false;
  #stepsLeft = 0;
  #losesLockAt = Number.POSITIVE_INFINITY;
  #points = 0;
  #openTransactions = 0;
  #isArmed = false;
  isDead = false;

  /** @param between is told of each point, and may do what others do meanwhile */
  constructor(locks: Locks, fate: Fate, between: (life: Life, what: string) => Promise<void>) {
    this.#locks = locks;
    this.#fate = fate;
    this.#between = between;
  }

  /** Until then nothing happens to it. */
  arm(): void {
    this.#isArmed = true;
  }

  get points(): number {
    return this.#points;
  }

  /** Aborted by Ctrl-C. */
  get signal(): AbortSignal {
    return this.#interrupt.signal;
  }

  /** Resolves when it stands still. */
  get stood(): Promise<void> {
    return this.#standing.promise;
  }

  get isStanding(): boolean {
    return this.#gate !== undefined;
  }

  get isInTransaction(): boolean {
    return this.#openTransactions > 0;
  }

  die(): void {
    this.isDead = true;
    this.#locks.releaseAll(this);
    this.#gate?.resolve();
    this.#gate = undefined;
    this.#going?.resolve();
  }

  /** Goes on for so many points, then stands still again; resolves when it does. */
  async goOnFor(points: number): Promise<void> {
    if (this.#gate === undefined) return;
    this.#stepsLeft = points;
    this.#going = Promise.withResolvers<void>();
    this.#gate.resolve();
    this.#gate = undefined;
    await this.#going.promise;
  }

  /** Goes on for so many points, and then sees that its lock is lost. */
  goOn(points: number): void {
    this.#stepsLeft = Number.POSITIVE_INFINITY;
    this.#losesLockAt = this.#points + points;
    this.#going?.resolve();
    this.#gate?.resolve();
    this.#gate = undefined;
  }

  /** It has ended by itself. */
  end(): void {
    this.#locks.releaseAll(this);
    this.#going?.resolve();
    this.#gate = undefined;
  }

  announced(step: string): void {
    if (!this.#isArmed || this.isDead) return;
    const nth = (this.#steps.get(step) ?? 0) + 1;
    this.#steps.set(step, nth);
    const { diesAtStep, isInterruptedAtStep } = this.#fate;
    if (diesAtStep?.name === step && diesAtStep.nth === nth) this.die();
    if (isInterruptedAtStep?.name === step && isInterruptedAtStep.nth === nth) this.#interrupt.abort();
  }

  async point(what: string): Promise<void> {
    if (!this.#isArmed) return;
    this.#expectAlive();
    this.#points++;
    if (this.#points === this.#fate.diesAt) this.die();
    this.#expectAlive();
    if (this.#points === this.#fate.isInterruptedAt) this.#interrupt.abort();
    if (this.#points >= this.#losesLockAt && !this.#lockLost.signal.aborted) {
      this.#lockLost.abort(new StowageError("DB_LOCK_LOST", { lock: "simulated" }, { hint: "simulated" }));
    }
    this.#standStillIfItIsTime();
    while (this.#gate !== undefined) await this.#gate.promise;
    this.#expectAlive();
    await this.#between(this, what);
    this.#expectAlive();
  }

  #standStillIfItIsTime(): void {
    if (this.#gate !== undefined || this.#openTransactions > 0) return;
    if (this.#hasStood ? --this.#stepsLeft >= 0 : this.#points < (this.#fate.standsStillAt ?? Number.POSITIVE_INFINITY))
      return;
    this.#hasStood = true;
    this.#gate = Promise.withResolvers<void>();
    this.#locks.releaseAll(this);
    this.#standing.resolve();
    this.#going?.resolve();
  }

  #expectAlive(): void {
    if (this.isDead) throw new Error("killed");
  }

  /** The database as this process reaches it. */
  databaseOver(database: Database): Database {
    const plugin: KyselyPlugin = {
      transformQuery: ({ node }) => {
        this.#expectAlive();
        return node;
      },
      transformResult: async ({ result }) => {
        await this.point("query");
        return result;
      },
    };
    const sql = database.sql.withPlugin(plugin);
    return {
      ...database,
      sql,
      binaryRows: async (query) => {
        this.#expectAlive();
        const rows = await database.binaryRows(query);
        await this.point("query");
        return rows;
      },
      transaction: async (work, call) => {
        await this.point("transaction");
        this.#openTransactions++;
        try {
          return await runTransaction(sql, work, call);
        } finally {
          this.#openTransactions--;
        }
      },
      lock: async (name): Promise<HeldLock | undefined> => {
        await this.point("lock");
        if (!this.#locks.take(name, this)) return undefined;
        return { signal: this.#lockLost.signal, [Symbol.asyncDispose]: async () => this.#locks.releaseAll(this) };
      },
      async [Symbol.asyncDispose]() {},
    };
  }

  /** A backend as this process reaches it. */
  driverOver(inner: ObjectDriver): ObjectDriver {
    const around = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
      await this.point(what);
      const result = await work();
      await this.point(`${what} done`);
      return result;
    };
    const { point } = { point: (what: string) => this.point(what) };
    return {
      ...manyWithin(inner, (operation, call, work) => around(`${operation} many`, () => work(call))),
      name: inner.name,
      capabilities: (call) => inner.capabilities(call),
      put: (key, body, call) => around("put", () => inner.put(key, body, call)),
      get: (key, range, call) => around("get", () => inner.get(key, range, call)),
      delete: (key, call) => around("delete", () => inner.delete(key, call)),
      purge: (key, sizeBytes, call) => around("purge", () => inner.purge(key, sizeBytes, call)),
      async *list(after, call) {
        await point("list");
        yield* inner.list(after, call);
      },
      listForeign: (call) => inner.listForeign(call),
      async [Symbol.asyncDispose]() {},
    };
  }
}
