import type { Errand } from "./pace.ts";

/** A median of fewer says little. */
const windowLeast = 32;

/**
 * By how much longer objects take than when little was at work: what others feel who use the same backends, lines and processors meanwhile. Medians of
 * windows are compared, since a few long objects say nothing of the rest.
 */
export class Strain {
  readonly #windows: Readonly<Record<Errand, number[]>> = { copying: [], verifying: [] };
  readonly #least: Record<Errand, number> = { copying: Number.POSITIVE_INFINITY, verifying: Number.POSITIVE_INFINITY };

  /** Notes how long an object took; at the end of each window of an errand its strain, 1 where it takes no longer than ever. */
  note(errand: Errand, tookMs: number, atOnce: number): number | undefined {
    const window = this.#windows[errand];
    window.push(tookMs);
    if (window.length < Math.max(windowLeast, 4 * atOnce)) return undefined;
    const sorted = window.splice(0).sort((one, other) => one - other);
    const median = sorted[sorted.length >> 1] ?? 0;
    this.#least[errand] = Math.min(this.#least[errand], median);
    return median / this.#least[errand];
  }
}
