import { StowageError } from "../../errors/index.ts";
import type { Call, Clock } from "../../runtime/index.ts";
import type { PhysicalKey } from "../driver.ts";
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
  const watch = (operation: string, key: PhysicalKey | undefined, call: Call) =>
    new StallWatch(options, call, { driver: driver.name, operation, ...(key === undefined ? {} : { key }) });
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
        const pieces = await watched.wait(opening, (late) => late.destroy());
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
    async *list(after, call) {
      const watched = watch("list", undefined, call);
      const blobs = driver.list(after, watched.call)[Symbol.asyncIterator]();
      let isStalled = false;
      try {
        for (;;) {
          const { done, value } = await watched.wait(blobs.next());
          if (done) return;
          yield value;
        }
      } catch (error) {
        isStalled = watched.isStalled;
        throw error;
      } finally {
        watched.end();
        // A generator that hangs ends only when what it waits for does.
        if (isStalled) blobs.return?.()?.catch(() => {});
        else await blobs.return?.();
      }
    },
  };
}

/** Why a watch stops: one reason for all of them, for an error that nobody sees is dear. */
const over = new StowageError("INPUT_INTERRUPTED", {});

/** So many ticks of silence are a stall. The clock is asked for durations only: it may jump. */
const ticks = 4;

interface About {
  readonly driver: string;
  readonly operation: string;
  readonly key?: string;
}

class StallWatch {
  /** What the driver works under: aborted when it stalls. */
  readonly call: Call;
  readonly #options: StallOptions;
  readonly #details: About;
  readonly #stalled = new AbortController();
  readonly #ended = new AbortController();
  /** Rises with everything that comes or goes. */
  #progress = 0;
  #isWaiting = false;
  #callersWaitedFor = 0;
  #isTicking = false;
  #fail: ((reason: unknown) => void) | undefined;

  constructor(options: StallOptions, call: Call, details: About) {
    this.#options = options;
    this.#details = details;
    this.call = { ...call, signal: AbortSignal.any([call.signal, this.#stalled.signal]) };
  }

  get isStalled(): boolean {
    return this.#stalled.signal.aborted;
  }

  /** Waits for the backend; what comes after it has been given up goes to `late`. */
  wait<T>(work: Promise<T>, late: (value: T) => void = () => {}): Promise<T> {
    this.#isWaiting = true;
    this.#progress++;
    if (!this.#isTicking) void this.#tick();
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
    this.#ended.abort(over);
  }

  /** Runs while the backend is waited for, and a tick longer. */
  async #tick(): Promise<void> {
    this.#isTicking = true;
    const { clock, stallMs } = this.#options;
    const under = { ...this.call, signal: this.#ended.signal };
    let silentTicks = 0;
    let seen = this.#progress;
    while (this.#isWaiting) {
      try {
        await clock.sleep(stallMs / ticks, under);
      } catch {
        return; // ended
      }
      const isSilent = this.#progress === seen && this.#callersWaitedFor === 0;
      seen = this.#progress;
      silentTicks = isSilent ? silentTicks + 1 : 0;
      if (this.#isWaiting && silentTicks >= ticks) {
        const error = new StowageError("BACKEND_STALLED", { ...this.#details, silentMs: stallMs });
        this.#stalled.abort(error);
        // Of an aborted call, the driver has only been given time to clean up: it ends with its own reason.
        this.#fail?.(abortReason(this.call));
        return;
      }
    }
    this.#isTicking = false;
  }
}
