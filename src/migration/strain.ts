/** A median of fewer says little. */
const windowLeast = 32;

/**
 * By how much longer objects take than when little was at work: what others feel who use the same backends, lines and processors meanwhile. Medians of
 * windows are compared, since a few long objects say nothing of the rest.
 */
export class Strain {
  readonly #window: number[] = [];
  #least = Number.POSITIVE_INFINITY;

  /** Notes how long an object took; at the end of each window the strain, 1 where they take no longer than ever. */
  note(tookMs: number, atOnce: number): number | undefined {
    this.#window.push(tookMs);
    if (this.#window.length < Math.max(windowLeast, 4 * atOnce)) return undefined;
    const sorted = this.#window.splice(0).sort((one, other) => one - other);
    const median = sorted[sorted.length >> 1] ?? 0;
    this.#least = Math.min(this.#least, median);
    return median / this.#least;
  }
}
