import type { Call, Clock } from "../../runtime/index.ts";

/** Those who waited along with another come back one after the other, and learn from the first whether it is time. */
const SPREAD_MS = 1000;

/**
 * What hosts told this process to wait for: one request is told, and all others to the same host wait with it. A host that was reached through a registry
 * is told apart by that registry, so that no registry can stop the traffic of another by leading to a place that says no.
 */
export class HostWaits {
  readonly #endsMs = new Map<string, number>();
  readonly #told = new Map<string, number>();

  /** Nothing is asked of the host for `ms` from now. */
  begin(registry: string, host: string, ms: number, clock: Clock): void {
    const now = clock.now().getTime();
    forgetPast(this.#endsMs, now);
    const key = `${registry} ${host}`;
    this.#endsMs.set(key, Math.max(this.#endsMs.get(key) ?? 0, now + ms));
  }

  /** Until the host may be asked; at most `maxMs`, however often others are told to wait meanwhile. */
  async end(
    registry: string,
    host: string,
    maxMs: number,
    { clock, random }: { readonly clock: Clock; readonly random: () => number },
    call: Call,
  ): Promise<void> {
    const key = `${registry} ${host}`;
    const begunMs = clock.now().getTime();
    for (;;) {
      const now = clock.now().getTime();
      const end = Math.min(this.#endsMs.get(key) ?? 0, begunMs + maxMs);
      if (end <= now) return;
      await clock.sleep(end - now + random() * SPREAD_MS, call);
    }
  }

  /** Whether nobody was told this within the last wait of the same words: several requests that fail together say so once. */
  isNews(text: string, ms: number, clock: Clock): boolean {
    const now = clock.now().getTime();
    forgetPast(this.#told, now);
    if (this.#told.has(text)) return false;
    this.#told.set(text, now + ms);
    return true;
  }
}

function forgetPast(ends: Map<string, number>, now: number): void {
  for (const [key, end] of ends) if (end <= now) ends.delete(key);
}
