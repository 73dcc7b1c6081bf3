import type { Call, Clock } from "../runtime/index.ts";

/** How many copies are at work at once: fewer when a backend asks to slow down, more again by itself. */
export class Pace {
  readonly #clock: Clock;
  readonly #bytesPerSecondMax: number | undefined;
  readonly #least = 1;
  readonly #most: number;
  readonly #isAdaptive: boolean;
  readonly #waiting: (() => void)[] = [];
  #limit: number;
  #active = 0;
  #paidUntilMs = 0;
  #slowedAtMs = Number.NEGATIVE_INFINITY;
  #calmCopies = 0;

  constructor(clock: Clock, concurrency: number | "auto", bytesPerSecondMax: number | undefined) {
    this.#clock = clock;
    this.#bytesPerSecondMax = bytesPerSecondMax;
    this.#isAdaptive = concurrency === "auto";
    this.#limit = concurrency === "auto" ? 16 : concurrency;
    this.#most = concurrency === "auto" ? 64 : concurrency;
  }

  get limit(): number {
    return this.#limit;
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
  async pay(bytes: number, call: Call): Promise<void> {
    if (this.#bytesPerSecondMax === undefined) return;
    const now = this.#clock.now().getTime();
    const startMs = Math.max(now, this.#paidUntilMs);
    this.#paidUntilMs = startMs + (bytes / this.#bytesPerSecondMax) * 1000;
    if (startMs > now) await this.#clock.sleep(startMs - now, call);
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
