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

const FIRST_DELAY_MS = 1000;
const DELAY_MAX_MS = 30_000;
/** A registry that wants us to wait longer is not waited for. */
const RETRY_AFTER_MAX_MS = 120_000;

/**
 * Repeats `work` while it throws {@link TransientFailure}: after 1, 2, 4… seconds give or take a quarter, or when the server says.
 * Each wait is told to whoever watches. Only for requests that change nothing.
 */
export async function retrying<T>(
  work: () => Promise<T>,
  settings: RegistrySettings,
  progress: Progress,
  call: Call,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof TransientFailure)) throw error;
      const asked = error.retryAfterMs;
      if (attempt >= settings.attemptsMax || (asked ?? 0) > RETRY_AFTER_MAX_MS) throw error.final(attempt);
      const backOff = Math.min(FIRST_DELAY_MS * 2 ** (attempt - 1), DELAY_MAX_MS) * (0.75 + settings.random() / 2);
      const delayMs = Math.max(backOff, asked ?? 0);
      progress.tell(`${error.message}, trying again in ${Math.max(1, Math.round(delayMs / 1000))} s`);
      await settings.clock.sleep(delayMs, call);
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
