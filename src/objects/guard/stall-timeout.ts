import { StowageError } from "../../errors/index.ts";
import { type Call, type Clock, follow } from "../../runtime/index.ts";
import { type PhysicalKey, WholeBody } from "../driver.ts";
import { abortReason } from "./abort-reason.ts";
import { forward, manyWithin, type PieceDriver, reopened } from "./pieces.ts";

export interface StallOptions {
  readonly clock: Clock;
  /** How long a backend may neither take nor give anything. */
  readonly stallMs: number;
}

/**
 * A backend that has stopped answering fails with `BACKEND_STALLED`. Only silence while the backend is waited for counts: neither the time that a reader
 * takes for what it was given, nor that of a body which is slow to come, and there is no limit on the whole. What the driver still does when it has
 * been given up is told to stop through its call; whether it does is not waited for.
 */
export function withStallTimeout(driver: PieceDriver, options: StallOptions): PieceDriver {
  const round = new Round(options);
  const watch = (operation: string, key: PhysicalKey | undefined, call: Call) =>
    new StallWatch(round, call, { driver: driver.name, operation, ...(key === undefined ? {} : { key }) });
  const whole = async <T>(watched: StallWatch, work: (call: Call) => Promise<T>): Promise<T> => {
    try {
      return await watched.wait(work(watched.call));
    } finally {
      watched.end();
    }
  };
  return {
    ...forward(driver),
    ...manyWithin(driver, (operation, call, work) => whole(watch(operation, undefined, call), work)),
    capabilities: (call) => whole(watch("capabilities", undefined, call), (under) => driver.capabilities(under)),
    delete: (key, call) => whole(watch("delete", key, call), (under) => driver.delete(key, under)),
    purge: (key, sizeBytes, call) => whole(watch("purge", key, call), (under) => driver.purge(key, sizeBytes, under)),
    async put(key, body, call) {
      const watched = watch("put", key, call);
      const open = async (under: Call) => {
        const pieces = await watched.waitForCaller(() => body.open(under));
        return { next: () => watched.waitForCaller(() => pieces.next()), destroy: () => pieces.destroy() };
      };
      return await whole(watched, (under) => driver.put(key, reopened(body, open), under));
    },
    async get(key, range, call) {
      const watched = watch("get", key, call);
      try {
        const opening = driver.get(key, range, watched.call);
        const pieces = await watched.wait(opening, (late) => void late.destroy());
        if (pieces instanceof WholeBody) {
          watched.end();
          return pieces;
        }
        return {
          next: () => watched.wait(pieces.next()),
          destroy() {
            watched.end();
            pieces.destroy();
          },
        };
      } catch (error) {
        watched.end();
        throw error;
      }
    },
    list: (after, call) => listed(watch("list", undefined, call), (under) => driver.list(after, under)),
    listForeign: (call) => listed(watch("list", undefined, call), (under) => driver.listForeign(under)),
  };
}

async function* listed<T>(watched: StallWatch, list: (call: Call) => AsyncIterable<T>): AsyncGenerator<T> {
  const items = list(watched.call)[Symbol.asyncIterator]();
  let isStalled = false;
  try {
    for (;;) {
      const { done, value } = await watched.wait(items.next());
      if (done) return;
      yield value;
    }
  } catch (error) {
    isStalled = watched.isStalled;
    throw error;
  } finally {
    watched.end();
    // A generator that hangs ends only when what it waits for does.
    if (isStalled) items.return?.()?.catch(() => {});
    else await items.return?.();
  }
}

/** Why a round ends: one reason for all, for an error that nobody sees is dear. */
const over = new StowageError("INPUT_INTERRUPTED", {});

/** So many ticks of silence are a stall. The clock is asked for durations only: it may jump. */
const ticks = 4;

/** Goes round all watches, tick by tick, while there are any: a timer for each would cost more than a short operation does. */
class Round {
  readonly options: StallOptions;
  readonly #watches = new Set<StallWatch>();
  #ended: AbortController | undefined;

  constructor(options: StallOptions) {
    this.options = options;
  }

  add(watch: StallWatch): void {
    this.#watches.add(watch);
    if (this.#ended !== undefined) return;
    this.#ended = new AbortController();
    void this.#go({ ...watch.call, signal: this.#ended.signal });
  }

  delete(watch: StallWatch): void {
    this.#watches.delete(watch);
    if (this.#watches.size > 0) return;
    this.#ended?.abort(over);
    this.#ended = undefined;
  }

  async #go(call: Call): Promise<void> {
    const { clock, stallMs } = this.options;
    while (!call.signal.aborted) {
      try {
        await clock.sleep(stallMs / ticks, call);
      } catch {
        return; // ended
      }
      for (const watch of this.#watches) watch.tick();
    }
  }
}

interface About {
  readonly driver: string;
  readonly operation: string;
  readonly key?: string;
}

class StallWatch {
  /** What the driver works under: aborted when it stalls. */
  readonly call: Call;
  readonly #round: Round;
  readonly #following: Disposable;
  readonly #details: About;
  readonly #stop = new AbortController();
  isStalled = false;
  /** Rises with everything that comes or goes. */
  #progress = 0;
  /** At the last tick. */
  #seen = -1;
  #silentTicks = 0;
  #isWaiting = false;
  #callersWaitedFor = 0;
  #fail: ((reason: unknown) => void) | undefined;

  constructor(round: Round, call: Call, details: About) {
    this.#round = round;
    this.#details = details;
    this.call = { ...call, signal: this.#stop.signal };
    this.#following = follow(call.signal, this.#stop);
    round.add(this);
  }

  /** Waits for the backend; what comes after it has been given up goes to `late`. */
  wait<T>(work: Promise<T>, late: (value: T) => void = () => {}): Promise<T> {
    this.#isWaiting = true;
    this.#progress++;
    const settled = () => {
      this.#isWaiting = false;
      this.#fail = undefined;
    };
    return new Promise<T>((resolve, reject) => {
      this.#fail = reject;
      work.then(
        (value) => {
          if (this.isStalled) late(value);
          settled();
          resolve(value);
        },
        (error: unknown) => {
          settled();
          reject(error);
        },
      );
    });
  }

  /** Waits, within `wait`, for something that is not the backend's to give. */
  async waitForCaller<T>(work: () => Promise<T>): Promise<T> {
    this.#progress++;
    this.#callersWaitedFor++;
    try {
      return await work();
    } finally {
      this.#callersWaitedFor--;
      this.#progress++;
    }
  }

  end(): void {
    this.#isWaiting = false;
    this.#following[Symbol.dispose]();
    this.#round.delete(this);
  }

  /** The first may come at any moment; between two of them passes all of a tick. */
  tick(): void {
    const isSilent = this.#isWaiting && this.#progress === this.#seen && this.#callersWaitedFor === 0;
    this.#seen = this.#progress;
    this.#silentTicks = isSilent ? this.#silentTicks + 1 : 0;
    if (this.isStalled || this.#silentTicks < ticks) return;
    this.isStalled = true;
    const { stallMs } = this.#round.options;
    this.#stop.abort(new StowageError("BACKEND_STALLED", { ...this.#details, silentMs: stallMs }));
    // Of an aborted call, the driver has only been given time to clean up: it ends with its own reason.
    this.#fail?.(abortReason(this.call));
  }
}
