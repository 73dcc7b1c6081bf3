import { hostname } from "node:os";
import type { Database, HeldLock } from "../db/index.ts";
import { StowageError } from "../errors/index.ts";
import type { Call } from "../runtime/index.ts";

/** Everyone who has the object store open holds this lock shared; who needs it for itself alone holds it exclusively. */
const name = "object store";

/** Others hold it exclusively for minutes or hours, or are just waiting for it: longer than they wait. */
const shareWaitMs = 5000;
const takeWaitMs = 2000;

/** How this process is named to others who find a lock taken: `stowage analyze 1234@host`. */
export function nameOfProcess(purpose: string): string {
  return `stowage ${purpose} ${process.pid}@${hostname()}`;
}

/** Says as long as it lives that this process has the object store open. */
export interface StoreShare extends AsyncDisposable {
  /** Fires when the lock was lost and somebody else has taken the store for itself since. */
  readonly signal: AbortSignal;
}

/** @throws StowageError `MIGRATION_RUNNING` */
export async function shareStore(database: Database, call: Call): Promise<StoreShare> {
  const lost = new AbortController();
  const closed = new AbortController();
  let held = await share(database, call);
  let regaining = Promise.resolve();
  const watch = (lock: HeldLock) => lock.signal.addEventListener("abort", regain, { once: true });
  // A restart of the database takes the lock away and does no harm, unless somebody takes the store for itself before we have it again.
  const regain = () => {
    regaining = share(database, { ...call, signal: closed.signal }).then(
      (lock) => {
        held = lock;
        watch(lock);
      },
      (error: unknown) => lost.abort(error),
    );
  };
  watch(held);
  return {
    signal: lost.signal,
    async [Symbol.asyncDispose]() {
      held.signal.removeEventListener("abort", regain);
      closed.abort();
      await regaining;
      held.signal.removeEventListener("abort", regain);
      await held[Symbol.asyncDispose]();
    },
  };
}

async function share(database: Database, call: Call): Promise<HeldLock> {
  const lock = await database.lock(name, "shared", shareWaitMs, call);
  if (lock !== undefined) return lock;
  const holders = await database.holdersOf(name);
  throw new StowageError("MIGRATION_RUNNING", holders.length === 0 ? {} : { reason: `by ${holders.join(", ")}` }, {
    hint: "try again when it has ended; stowage objectstorage list-migrations shows how far it is",
  });
}

/**
 * The store for this process alone.
 * @throws StowageError `MIGRATION_STORE_IN_USE`, which names the others
 */
export async function takeStore(database: Database, call: Call): Promise<HeldLock> {
  const lock = await database.lock(name, "exclusive", takeWaitMs, call);
  if (lock !== undefined) return lock;
  throw new StowageError(
    "MIGRATION_STORE_IN_USE",
    { processes: await storeHolders(database) },
    { hint: "stop these processes, or wait for them, and run it again" },
  );
}

export function storeHolders(database: Database): Promise<readonly string[]> {
  return database.holdersOf(name);
}

function backendLock(id: number): string {
  return `object store backend ${id}`;
}

/** Says as long as it lives that this process can reach these backends. What lies in the database itself everybody reaches. */
export async function shareBackends(database: Database, ids: readonly number[], call: Call): Promise<AsyncDisposable> {
  const held = new AsyncDisposableStack();
  for (const id of ids) held.use(await database.lock(backendLock(id), "shared", 0, call));
  return held;
}

/** Processes that have the object store open and can't reach all of these backends. */
export async function processesWithout(database: Database, ids: readonly number[]): Promise<readonly string[]> {
  const processes = await storeHolders(database);
  const reached = await Promise.all(ids.map((id) => database.holdersOf(backendLock(id))));
  return processes.filter((each) => reached.some((holders) => !holders.includes(each)));
}
