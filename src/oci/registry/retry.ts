import type { StowageError } from "../../errors/index.ts";
import type { Call, Progress } from "../../runtime/index.ts";
import type { RegistrySettings } from "./settings.ts";

/** A failure that may pass: what to tell meanwhile, and what to throw when it doesn't. */
export class TransientFailure extends Error {
  readonly retryAfterMs: number | undefined;
  readonly final: (attempts: number) => StowageError;

  constructor(
    reason: string,
    final: (attempts: number) => StowageError,
    options: { readonly retryAfterMs?: number | undefined; readonly cause?: unknown } = {},
  ) {
    super(reason, { cause: options.cause });
    this.retryAfterMs = options.retryAfterMs;
    this.final = final;
  }
}

export const FIRST_DELAY_MS = 1000;
const DELAY_MAX_MS = 30_000;
/** A registry that wants us to wait longer is not waited for. */
export const RETRY_AFTER_MAX_MS = 120_000;
/** What earns a long download one more try. */
const BYTES_PER_ATTEMPT = 1024 * 1024;

/**
 * Decides after each {@link TransientFailure} whether to try again, and waits: 1, 2, 4… seconds give or take a quarter, or as long as the server says.
 * Tries without a byte between them are bounded, and so are all of them together: whoever sends a byte each time can't hold us for ever.
 * Each wait is told to whoever watches. Only for requests that change nothing.
 *
 * It is not `retry` of the runtime: failures of the same code are worth a second try or not, depending on where they come from, and a stream goes on
 * with the same count.
 */
export class Retries {
  readonly #settings: RegistrySettings;
  readonly #progress: Progress;
  #attempts = 0;
  #attemptsInAll = 0;
  #bytes = 0;

  constructor(settings: RegistrySettings, progress: Progress) {
    this.#settings = settings;
    this.#progress = progress;
  }

  /** Bytes came that are kept. */
  progressed(bytes: number): void {
    this.#attempts = 0;
    this.#bytes += bytes;
  }

  /** Bytes came once more that were there already: what a try costs is not earned by it. */
  repeated(bytes: number): void {
    this.#bytes -= bytes;
  }

  /**
   * Waits until it may be tried again.
   * @throws whatever is no failure that may pass; the final form of one that did not in time
   */
  async waitAfter(error: unknown, call: Call): Promise<void> {
    if (!(error instanceof TransientFailure)) throw error;
    const { attemptsMax, attemptsInAllMax, random, clock, hostWaits } = this.#settings;
    this.#attempts++;
    this.#attemptsInAll++;
    const earned = Math.max(0, Math.floor(this.#bytes / BYTES_PER_ATTEMPT));
    const asked = error.retryAfterMs ?? 0;
    if (
      this.#attempts >= attemptsMax ||
      this.#attemptsInAll >= attemptsInAllMax + earned ||
      asked > RETRY_AFTER_MAX_MS
    ) {
      throw error.final(this.#attemptsInAll);
    }
    const backOff = Math.min(FIRST_DELAY_MS * 2 ** (this.#attempts - 1), DELAY_MAX_MS) * (0.75 + random() / 2);
    const delayMs = Math.max(backOff, asked);
    const text = `${error.message}, trying again in ${Math.max(1, Math.round(delayMs / 1000))} s`;
    if (hostWaits.isNews(text, delayMs, clock)) this.#progress.tell(text);
    await clock.sleep(delayMs, call);
  }
}

/** Repeats `work` as {@link Retries} has it. */
export async function retrying<T>(
  work: () => Promise<T>,
  settings: RegistrySettings,
  progress: Progress,
  call: Call,
): Promise<T> {
  const retries = new Retries(settings, progress);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      await retries.waitAfter(error, call);
    }
  }
}

/** `Retry-After`: seconds or a date. @see RFC 9110, 10.2.3 */
export function parseRetryAfter(value: string | undefined, now: Date): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,9}$/.test(value.trim())) return Number(value.trim()) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now.getTime());
}
