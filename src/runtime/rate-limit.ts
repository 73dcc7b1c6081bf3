import type { Call } from "./call.ts";
import type { Clock } from "./time.ts";

/** Spreads bytes over time: no more than so many in a second, in the long run. */
export class RateLimit {
  readonly #clock: Clock;
  readonly #bytesPerSecondMax: number | undefined;
  #paidUntilMs = 0;

  /** @param bytesPerSecondMax left out: no limit */
  constructor(clock: Clock, bytesPerSecondMax: number | undefined) {
    this.#clock = clock;
    this.#bytesPerSecondMax = bytesPerSecondMax;
  }

  /** Waits until so many bytes more may pass. */
  async pay(bytes: number, call: Call): Promise<void> {
    if (this.#bytesPerSecondMax === undefined) return;
    const now = this.#clock.now().getTime();
    const startMs = Math.max(now, this.#paidUntilMs);
    this.#paidUntilMs = startMs + (bytes / this.#bytesPerSecondMax) * 1000;
    if (startMs > now) await this.#clock.sleep(startMs - now, call);
  }
}
