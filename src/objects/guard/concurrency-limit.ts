import { type Call, type Clock, createCall, throwIfAborted } from "../../runtime/index.ts";
import { WholeBody } from "../driver.ts";
import { forward, manyWithin, type PieceDriver, reopened } from "./pieces.ts";

export interface LimitOptions {
  readonly clock: Clock;
  /** Operations that begin while fewer are at work; the others wait for their turn. */
  readonly operationsMax: number;
  /** After so long a wait for its own caller, an operation lends its place to another. */
  readonly lendAfterMs: number;
}

/**
 * Bounds the operations at work; a stream is at work until it has ended or was destroyed.
 *
 * That alone could wait for ever: a body that is read from the same driver waits for a place that its own put holds, and so do readers who open many
 * streams before they read the first. So an operation that has waited for its caller for a while lends its place to the next one in the queue, and goes
 * on at once, without queueing, when its caller is back. Whoever holds a place and does not lend it waits for the backend only, which ends (see the
 * stall timeout): there is no circle. The price: as many operations may be at work beyond the limit as were idle.
 */
export function withConcurrencyLimit(driver: PieceDriver, options: LimitOptions): PieceDriver {
  const places = new Places(options);
  const whole = async <T>(call: Call, work: (place: Place) => Promise<T>): Promise<T> => {
    const place = await places.take(call);
    try {
      return await work(place);
    } finally {
      place.release();
    }
  };
  return {
    ...forward(driver),
    ...manyWithin(driver, (_, call, work) => whole(call, () => work(call))),
    delete: (key, call) => whole(call, () => driver.delete(key, call)),
    purge: (key, sizeBytes, call) => whole(call, () => driver.purge(key, sizeBytes, call)),
    put: (key, body, call) =>
      whole(call, async (place) => {
        const open = async (under: Call) => {
          const pieces = await place.waitForCaller(() => body.open(under));
          return { next: () => place.waitForCaller(() => pieces.next()), destroy: () => pieces.destroy() };
        };
        return await driver.put(key, reopened(body, open), call);
      }),
    async get(key, range, call) {
      const place = await places.take(call);
      try {
        const pieces = await driver.get(key, range, call);
        if (pieces instanceof WholeBody) {
          place.release();
          return pieces;
        }
        place.idle();
        return {
          async next() {
            place.busy();
            try {
              return await pieces.next();
            } finally {
              place.idle();
            }
          },
          destroy() {
            place.release();
            pieces.destroy();
          },
        };
      } catch (error) {
        place.release();
        throw error;
      }
    },
    list: (after, call) => listed(places, () => driver.list(after, call), call),
    listForeign: (call) => listed(places, () => driver.listForeign(call), call),
  };
}

async function* listed<T>(places: Places, list: () => AsyncIterable<T>, call: Call): AsyncGenerator<T> {
  const place = await places.take(call);
  try {
    for await (const item of list()) {
      place.idle();
      yield item;
      place.busy();
    }
  } finally {
    place.release();
  }
}

interface Waiting {
  readonly enter: (place: Place) => void;
}

class Places {
  readonly #options: LimitOptions;
  readonly #held = new Set<Place>();
  readonly #queue = new Set<Waiting>();
  #atWork = 0;
  #isSweeping = false;

  constructor(options: LimitOptions) {
    this.#options = options;
  }

  async take(call: Call): Promise<Place> {
    throwIfAborted(call);
    if (this.#queue.size === 0 && this.#atWork < this.#options.operationsMax) return this.#enter();
    const { promise, resolve, reject } = Promise.withResolvers<Place>();
    const waiting: Waiting = { enter: resolve };
    this.#queue.add(waiting);
    const leave = () => {
      if (this.#queue.delete(waiting)) reject(call.signal.reason);
    };
    call.signal.addEventListener("abort", leave, { once: true });
    if (!this.#isSweeping) void this.#sweep();
    try {
      return await promise;
    } catch (error) {
      throwIfAborted(call);
      throw error;
    } finally {
      call.signal.removeEventListener("abort", leave);
    }
  }

  leave(place: Place): void {
    this.#held.delete(place);
    this.changeAtWork(place.isLent ? 0 : -1);
  }

  changeAtWork(by: number): void {
    this.#atWork += by;
    for (const waiting of this.#queue) {
      if (this.#atWork >= this.#options.operationsMax) return;
      this.#queue.delete(waiting);
      waiting.enter(this.#enter());
    }
  }

  #enter(): Place {
    this.#atWork++;
    const place = new Place(this);
    this.#held.add(place);
    return place;
  }

  /** While somebody waits, looks for those who have been idle for a whole round. */
  async #sweep(): Promise<void> {
    this.#isSweeping = true;
    const { clock, lendAfterMs } = this.#options;
    while (this.#queue.size > 0) {
      for (const place of this.#held) place.mark();
      await clock.sleep(lendAfterMs, createCall());
      for (const place of this.#held) if (this.#queue.size > 0) place.lendIfIdleSinceMark();
    }
    this.#isSweeping = false;
  }
}

class Place {
  readonly #places: Places;
  #isIdle = false;
  #wasIdle = false;
  #isReleased = false;
  isLent = false;

  constructor(places: Places) {
    this.#places = places;
  }

  /** Its caller's turn. */
  idle(): void {
    this.#isIdle = true;
  }

  /** The backend's turn again. */
  busy(): void {
    this.#isIdle = false;
    this.#wasIdle = false;
    if (!this.isLent || this.#isReleased) return;
    this.isLent = false;
    this.#places.changeAtWork(1);
  }

  async waitForCaller<T>(work: () => Promise<T>): Promise<T> {
    this.idle();
    try {
      return await work();
    } finally {
      this.busy();
    }
  }

  mark(): void {
    this.#wasIdle = this.#isIdle;
  }

  lendIfIdleSinceMark(): void {
    if (!this.#wasIdle || this.isLent) return;
    this.isLent = true;
    this.#places.changeAtWork(-1);
  }

  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    this.#places.leave(this);
  }
}
