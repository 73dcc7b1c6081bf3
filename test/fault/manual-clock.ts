import { type Call, type Clock, throwIfAborted } from "../../src/runtime/index.ts";

interface Sleeper {
  readonly at: number;
  readonly wake: () => void;
}

/** A clock that stands still until a test moves it on. */
export class ManualClock implements Clock {
  #nowMs = 0;
  readonly #sleepers = new Set<Sleeper>();
  /** How long each sleep was asked for. */
  readonly sleeps: number[] = [];

  now(): Date {
    return new Date(this.#nowMs);
  }

  /** How many wait for it. */
  get waiting(): number {
    return this.#sleepers.size;
  }

  async sleep(ms: number, call: Call): Promise<void> {
    throwIfAborted(call);
    this.sleeps.push(ms);
    const { promise, resolve } = Promise.withResolvers<void>();
    const sleeper: Sleeper = { at: this.#nowMs + ms, wake: resolve };
    this.#sleepers.add(sleeper);
    call.signal.addEventListener("abort", resolve as () => void, { once: true });
    await promise;
    call.signal.removeEventListener("abort", resolve as () => void);
    this.#sleepers.delete(sleeper);
    throwIfAborted(call);
  }

  /** Lets `ms` pass, waking each sleeper at its time; in between, all that can go on goes on. */
  async advance(ms: number): Promise<void> {
    const end = this.#nowMs + ms;
    await settle();
    for (;;) {
      const next = [...this.#sleepers].filter(({ at }) => at <= end).sort((one, other) => one.at - other.at)[0];
      if (next === undefined) break;
      this.#nowMs = Math.max(this.#nowMs, next.at);
      this.#sleepers.delete(next);
      next.wake();
      await settle();
    }
    this.#nowMs = end;
  }

  /** Moves on whenever somebody sleeps, until the work is done. */
  async runUntil<T>(work: Promise<T>): Promise<T> {
    let isDone = false;
    const done = () => {
      isDone = true;
    };
    work.then(done, done);
    await settle();
    while (!isDone) {
      const next = Math.min(...[...this.#sleepers].map(({ at }) => at));
      await this.advance(Number.isFinite(next) ? next - this.#nowMs : 0);
    }
    return await work;
  }
}

/** Lets everything happen that waits for nothing but its turn. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}
