import { type Call, throwIfAborted } from "../runtime/index.ts";

/** An amount that many share: whoever wants more than is left waits, and those who wait are served in the order in which they came. */
export class Budget {
  readonly #total: number;
  #left: number;
  readonly #waiting = new Set<{ readonly amount: number; readonly serve: () => void }>();

  constructor(total: number) {
    this.#total = total;
    this.#left = total;
  }

  /** Nobody has or wants anything of it. */
  get isIdle(): boolean {
    return this.#left === this.#total && this.#waiting.size === 0;
  }

  /** Waits for `wanted` of it; more than there is at all counts as all. It is given back when the result is disposed of. */
  async take(call: Call, wanted = 1): Promise<Disposable> {
    throwIfAborted(call);
    const amount = Math.min(Math.max(wanted, 0), this.#total);
    if (this.#waiting.size > 0 || amount > this.#left) await this.#wait(amount, call);
    else this.#left -= amount;
    let isGiven = true;
    return {
      [Symbol.dispose]: () => {
        if (!isGiven) return;
        isGiven = false;
        this.#left += amount;
        this.#serve();
      },
    };
  }

  async #wait(amount: number, call: Call): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter = { amount, serve: resolve };
    // Whoever was served just before has it, and finds out by itself that its call was aborted.
    const giveUp = () => {
      if (!this.#waiting.delete(waiter)) return;
      reject(call.signal.reason);
      this.#serve();
    };
    this.#waiting.add(waiter);
    call.signal.addEventListener("abort", giveUp, { once: true });
    try {
      await promise;
    } catch (error) {
      throwIfAborted(call);
      throw error;
    } finally {
      call.signal.removeEventListener("abort", giveUp);
    }
  }

  #serve(): void {
    for (const waiter of this.#waiting) {
      if (waiter.amount > this.#left) return;
      this.#waiting.delete(waiter);
      this.#left -= waiter.amount;
      waiter.serve();
    }
  }
}

/** Lets those of one process who want the same thing have it one after the other. */
export class Turns {
  readonly #things = new Map<string, Budget>();

  /** Things that somebody has or wants. */
  get size(): number {
    return this.#things.size;
  }

  /** Waits until nobody has the thing; the turn ends when the result is disposed of. */
  async take(name: string, call: Call): Promise<Disposable> {
    const thing = this.#things.get(name) ?? new Budget(1);
    this.#things.set(name, thing);
    const forget = () => {
      if (thing.isIdle) this.#things.delete(name);
    };
    try {
      const turn = await thing.take(call);
      return {
        [Symbol.dispose]() {
          turn[Symbol.dispose]();
          forget();
        },
      };
    } catch (error) {
      forget();
      throw error;
    }
  }
}
