import { type Call, type Clock, RateLimit } from "../runtime/index.ts";

/** Where nobody says how many. A backend is not asked to do more at once (see the guard's limit); what waits for it is memory. */
const autoMost = 32;

/** How many copies are at work at once: fewer when a backend asks to slow down, more again by itself. */
export class Pace {
  readonly #clock: Clock;
  readonly #rate: RateLimit;
  readonly #least = 1;
  readonly #most: number;
  readonly #isAdaptive: boolean;
  readonly #waiting: (() => void)[] = [];
  #limit: number;
  #active = 0;
  #slowedAtMs = Number.NEGATIVE_INFINITY;
  #calmCopies = 0;

  constructor(clock: Clock, concurrency: number | "auto", bytesPerSecondMax: number | undefined) {
    this.#clock = clock;
    this.#rate = new RateLimit(clock, bytesPerSecondMax);
    this.#isAdaptive = concurrency === "auto";
    this.#most = concurrency === "auto" ? autoMost : concurrency;
    this.#limit = this.#most;
  }

  /** Runs `work` when there is room for it. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    while (this.#active >= this.#limit) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#active++;
    try {
      return await work();
    } finally {
      this.#active--;
      this.#waiting.shift()?.();
    }
  }

  /** Waits until so many bytes more may be sent. */
  pay(bytes: number, call: Call): Promise<void> {
    return this.#rate.pay(bytes, call);
  }

  /** A backend asked to slow down: half as much, at most once a second, since what is under way was begun before. */
  slowDown(): void {
    if (!this.#isAdaptive) return;
    const now = this.#clock.now().getTime();
    this.#calmCopies = 0;
    if (now - this.#slowedAtMs < 1000) return;
    this.#slowedAtMs = now;
    this.#limit = Math.max(this.#least, Math.floor(this.#limit / 2));
  }

  /** One went through: one more at once after as many as there are at once. */
  speedUp(): void {
    if (!this.#isAdaptive || ++this.#calmCopies < this.#limit) return;
    this.#calmCopies = 0;
    this.#limit = Math.min(this.#most, this.#limit + 1);
    this.#waiting.shift()?.();
  }
}
