import type { Ticker } from "../../src/cli/progress/tasks.ts";

/** Time that passes only when told to. */
export class FakeTicker implements Ticker {
  #now = 0;
  readonly #timers = new Set<{ readonly every: number; next: number; readonly action: () => void }>();

  now(): number {
    return this.#now;
  }

  every(ms: number, action: () => void): () => void {
    const timer = { every: ms, next: this.#now + ms, action };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  get timers(): number {
    return this.#timers.size;
  }

  pass(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].sort((one, other) => one.next - other.next)[0];
      if (!due || due.next > end) break;
      this.#now = due.next;
      due.next += due.every;
      due.action();
    }
    this.#now = end;
  }
}
